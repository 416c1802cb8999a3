#ifndef GPIPE_COMMON_LISTEN_ADDRESS_H_
#define GPIPE_COMMON_LISTEN_ADDRESS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/address.h"
#include "common/string_view.h"

namespace gpipe {

// Whether a server may listen there: INVALID_ARGUMENT, which names the flag, when `listen` is not HOST:PORT, or when
// other machines can reach it and it is neither `encrypted` nor `insecure`, or when it is both.
inline absl::Status CheckListenAddress(std::string_view flag, const std::string& listen, bool encrypted,
                                       bool insecure) {
  if (!PortOf(listen))
    return absl::InvalidArgumentError(absl::StrCat(AbslView(flag), " ", listen, ": must be HOST:PORT"));
  if (encrypted && insecure) return absl::InvalidArgumentError("--insecure and --tls-ca contradict each other");
  if (encrypted || insecure || IsLoopback(HostOf(listen))) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(AbslView(flag), " ", listen,
                   ": other machines could reach it, and nothing is encrypted or authenticated; give "
                   "--tls-ca, --tls-cert and --tls-key, or say --insecure if that is what you want"));
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_LISTEN_ADDRESS_H_
