#ifndef GPIPE_COMMON_NET_GRPC_LOG_H_
#define GPIPE_COMMON_NET_GRPC_LOG_H_

namespace gpipe {

// For main, once, before anything uses gRPC, which writes to stderr by itself otherwise. GRPC_VERBOSITY leaves it as it
// is, for those who look into gRPC.

// What gRPC says is in the program's log: its errors, and why a handshake with a client failed, which in a daemon is
// the only trace of those who were not let in. Only some lines in a second.
void LogGrpc();

// It says nothing: for a program whose calls' errors say all.
void SilenceGrpc();

}  // namespace gpipe

#endif  // GPIPE_COMMON_NET_GRPC_LOG_H_
