#include "common/utf8.h"

#include <cstddef>
#include <cstdint>

namespace gpipe {
namespace {

// Bytes of a character by its first byte; 0 when no character begins so.
size_t LengthOf(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xf0 && first <= 0xf4) return 4;
  return 0;
}

// Whether `bytes`, of the length that its first byte asks for, is one character: continuation bytes only, no longer
// form than needed, no surrogate, nothing beyond U+10FFFF.
bool IsCharacter(std::string_view bytes) {
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (bytes.size() == 1) return true;
  uint32_t value = static_cast<unsigned char>(bytes[0]) & (0x7fu >> bytes.size());
  for (const char c : bytes.substr(1)) {
    if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) return false;
    value = value << 6 | (static_cast<unsigned char>(c) & 0x3f);
  }
  return value >= kLeast[bytes.size()] && value <= 0x10ffff && (value < 0xd800 || value > 0xdfff);
}

}  // namespace

std::string_view Utf8Prefix(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    const size_t length = LengthOf(static_cast<unsigned char>(text[end]));
    if (length == 0 || length > text.size() - end || !IsCharacter(text.substr(end, length))) break;
    end += length;
  }
  return text.substr(0, end);
}

}  // namespace gpipe
