#ifndef GPIPE_COMMON_LOG_FORMATTER_H_
#define GPIPE_COMMON_LOG_FORMATTER_H_

#include <memory>

#include "spdlog/formatter.h"

namespace gpipe {

// One line an entry, with time, level and the program's name. A message is one entry, whatever it quotes: its further
// lines are set off, so that none passes for an entry of its own, and control characters are written out.
std::unique_ptr<spdlog::formatter> MakeTextFormatter();

}  // namespace gpipe

#endif  // GPIPE_COMMON_LOG_FORMATTER_H_
