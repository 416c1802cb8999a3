#ifndef GPIPE_COMMON_LOOPBACK_H_
#define GPIPE_COMMON_LOOPBACK_H_

#include <string_view>

namespace gpipe {

// The host of HOST:PORT. REQUIRES: a ':' before the port; an IPv6 host is in brackets.
inline std::string_view HostOf(std::string_view address) { return address.substr(0, address.rfind(':')); }

// Whether only this machine reaches `host`, as it is written; names are not looked up.
inline bool IsLoopback(std::string_view host) {
  return host == "localhost" || host == "[::1]" || host.starts_with("127.");
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_LOOPBACK_H_
