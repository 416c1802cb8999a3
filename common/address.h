#ifndef GPIPE_COMMON_ADDRESS_H_
#define GPIPE_COMMON_ADDRESS_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "common/string_view.h"

namespace gpipe {

// The port of HOST:PORT, where the host is not empty; nullopt when it is something else.
inline std::optional<int> PortOf(std::string_view address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  if (!absl::SimpleAtoi(AbslView(address.substr(colon + 1)), &port) || port < 0 || port > 65535) return std::nullopt;
  return port;
}

// What is wrong with an option that must be HOST:PORT; empty when nothing is.
inline std::string AddressProblem(const std::string& address) {
  return PortOf(address) ? "" : address + " is not HOST:PORT";
}

// The host of HOST:PORT. REQUIRES: a ':' before the port; an IPv6 host is in brackets.
inline std::string_view HostOf(std::string_view address) { return address.substr(0, address.rfind(':')); }

// Whether only this machine reaches `host`, as it is written; names are not looked up.
inline bool IsLoopback(std::string_view host) {
  const bool is_number = host.find_first_not_of("0123456789.") == std::string_view::npos;
  return host == "localhost" || host == "[::1]" || (is_number && host.starts_with("127."));
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_ADDRESS_H_
