#ifndef GPIPE_COMMON_LOG_FLAGS_H_
#define GPIPE_COMMON_LOG_FLAGS_H_

#include <string>

#include "CLI/CLI.hpp"
#include "common/log_output.h"

namespace gpipe {

inline void AddLogFlags(CLI::App& app, LogOutput& output) {
  app.add_option_function<std::string>(
         "--log-format", [&output](const std::string& format) { output.json = format == "json"; },
         "text | json: one object a line, with ts, level, job, attempt, worker, stage, step")
      ->check(CLI::IsMember({"text", "json"}))
      ->default_str("text");
  app.add_option("--log-file", output.file,
                 "Log into this file instead of stderr, which then gets errors only; moved aside at 64 MiB, 4 are kept")
      ->type_name("FILE");
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_LOG_FLAGS_H_
