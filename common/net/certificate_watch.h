#ifndef GPIPE_COMMON_NET_CERTIFICATE_WATCH_H_
#define GPIPE_COMMON_NET_CERTIFICATE_WATCH_H_

#include <array>
#include <functional>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/artifacts/file_stamp.h"
#include "common/net/connection_times.h"
#include "common/net/tls_options.h"

namespace gpipe {

// Logs what becomes of this program's certificate: until when it is valid, that it was renewed, that what took its
// place cannot be used, and, once a day, that it is about to expire. gRPC follows the files by itself (channel.h,
// server.h) and says nothing of it. A thread of its own looks every kCertificateRefreshSeconds; the files are on
// network volumes, where nobody tells of changes.
class CertificateWatch {
 public:
  static constexpr absl::Duration kSoon = absl::Hours(14 * 24);

  // Nothing happens when no file is given. `on_change`, which may be null, is called by the thread after the files have
  // changed and can be used.
  explicit CertificateWatch(TlsOptions tls, std::function<void()> on_change = nullptr,
                            absl::Duration interval = absl::Seconds(kCertificateRefreshSeconds));
  ~CertificateWatch();
  CertificateWatch(const CertificateWatch&) = delete;
  CertificateWatch& operator=(const CertificateWatch&) = delete;

 private:
  using Stamps = std::array<FileStamp, 3>;

  Stamps Look() const;
  void Run();
  void TellNew() const;
  void WarnOfEnd();

  const TlsOptions tls_;
  const std::function<void()> on_change_;
  const absl::Duration interval_;
  absl::Time warned_ = absl::InfinitePast();  // The thread's.
  absl::Notification stopped_;
  std::jthread thread_;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_CERTIFICATE_WATCH_H_
