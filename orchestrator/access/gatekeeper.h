#ifndef GPIPE_ORCHESTRATOR_ACCESS_GATEKEEPER_H_
#define GPIPE_ORCHESTRATOR_ACCESS_GATEKEEPER_H_

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/log_limiter.h"
#include "common/random_id.h"
#include "grpcpp/server_context.h"
#include "orchestrator/access/roles.h"
#include "orchestrator/access/token_file.h"

namespace gpipe::orchestrator {

// Who calls.
struct Caller {
  std::string name = {};  // CN of a certificate, or as the file of tokens has it; empty: nobody in particular.
  Role role = Role::kNone;
  bool may_everything = false;  // In plain text nobody can say who he is.
  bool bad_token = false;       // It is in no file of ours.

  // Whether a worker may go by that name: it is that of its certificate, or begins with it and a `-`, so that one
  // certificate can serve worker-0, worker-1.
  bool Owns(std::string_view worker) const;
};

// Knows callers by certificate or token, and what they may do. Any thread may call any method.
class Gatekeeper {
 public:
  struct Options {
    bool plain_text = true;  // Everybody may do everything.
    std::filesystem::path tokens_file = {};
  };
  // INVALID_ARGUMENT: as TokenFile::Open; tokens in plain text.
  static absl::StatusOr<std::unique_ptr<Gatekeeper>> Create(const Options& options);

  // By `authorization: Bearer TOKEN`, if that is there, else by the certificate of the connection.
  Caller WhoCalls(const grpc::CallbackServerContext& context) const;
  // As over HTTP; an empty token is none.
  Caller WhoHas(std::string_view token) const;

  // The token of those who ask over HTTP and have none themselves: they may read. Another one in each process.
  const std::string& reader_token() const { return reader_token_; }

  // UNAUTHENTICATED: there is no certificate with a role and no token, or a wrong one. PERMISSION_DENIED: the role is
  // not enough. `method` as in Rule. What is refused is logged, with `from`, where the caller is.
  absl::Status Check(const Caller& caller, std::string_view method, std::string_view from) const;

 private:
  Gatekeeper(bool plain_text, std::unique_ptr<TokenFile> tokens)
      : plain_text_(plain_text), tokens_(std::move(tokens)) {}
  static absl::Status Judge(const Caller& caller, std::string_view method);

  static constexpr int kLinesPerSecond = 10;
  const bool plain_text_;
  const std::string reader_token_ = RandomId();
  const std::unique_ptr<TokenFile> tokens_;  // Null: there are none.
  mutable LogLimiter refusals_{kLinesPerSecond};
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ACCESS_GATEKEEPER_H_
