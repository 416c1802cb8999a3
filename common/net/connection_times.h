#ifndef GPIPE_COMMON_NET_CONNECTION_TIMES_H_
#define GPIPE_COMMON_NET_CONNECTION_TIMES_H_

namespace gpipe {

// What both ends of a connection must agree on.

// While calls are open, each side asks the other so often whether it is there, and hangs up when no answer comes: a
// cable that was pulled is noticed by who only listens (a watcher). Workers have their heartbeats besides.
inline constexpr int kKeepaliveMillis = 20'000;
inline constexpr int kKeepaliveTimeoutMillis = 20'000;
// A server takes those who ask more often than this for an attacker. Clients of other makes may ask more often than
// ours.
inline constexpr int kLeastKeepaliveMillis = 5'000;

// How often the files of certificates are looked at.
inline constexpr unsigned kCertificateRefreshSeconds = 5;

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_CONNECTION_TIMES_H_
