#include "orchestrator/access/gatekeeper.h"

#include <openssl/crypto.h>

#include "absl/strings/str_cat.h"
#include "common/net/certificate.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "grpc/grpc_security_constants.h"
#include "grpcpp/security/auth_context.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

constexpr std::string_view kBearer = "Bearer ";

// The token of a call; nullopt: it has none.
std::optional<std::string_view> TokenOf(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("authorization");
  if (found == context.client_metadata().end()) return std::nullopt;
  const std::string_view value(found->second.data(), found->second.size());
  return value.starts_with(kBearer) ? value.substr(kBearer.size()) : std::string_view();
}

bool SameToken(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

Caller HolderOf(std::string_view pem) {
  const absl::StatusOr<Certificate> certificate = ParseCertificate(pem);
  if (!certificate.ok()) return {};
  return {.name = certificate->name, .role = ParseRole(certificate->unit).value_or(Role::kNone)};
}

std::string Describe(const Caller& caller) {
  if (caller.bad_token) return "somebody with an unknown token";
  if (caller.name.empty()) return "somebody without a certificate or token";
  return absl::StrCat("'", caller.name, "' (role ", AbslView(RoleName(caller.role)), ")");
}

}  // namespace

bool Caller::Owns(std::string_view worker) const {
  if (may_everything || worker == name) return true;
  return !name.empty() && worker.size() > name.size() && worker.starts_with(name) && worker[name.size()] == '-';
}

absl::StatusOr<std::unique_ptr<Gatekeeper>> Gatekeeper::Create(const Options& options) {
  std::unique_ptr<TokenFile> tokens;
  if (!options.tokens_file.empty()) {
    if (options.plain_text) {
      return absl::InvalidArgumentError("--tokens-file needs --tls-ca: tokens do not travel in plain text");
    }
    GPIPE_ASSIGN_OR_RETURN(tokens, TokenFile::Open(options.tokens_file));
  }
  return std::unique_ptr<Gatekeeper>(new Gatekeeper(options.plain_text, std::move(tokens)));
}

Caller Gatekeeper::WhoCalls(const grpc::CallbackServerContext& context) const {
  if (plain_text_) return {.may_everything = true};
  if (const auto token = TokenOf(context)) return WhoHas(*token);
  const auto pem = context.auth_context()->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  return pem.empty() ? Caller() : HolderOf({pem[0].data(), pem[0].size()});
}

Caller Gatekeeper::WhoHas(std::string_view token) const {
  if (plain_text_) return {.may_everything = true};
  if (SameToken(token, reader_token_)) return {.name = "reader", .role = Role::kRead};
  const auto owner = tokens_ == nullptr ? std::nullopt : tokens_->Find(token);
  if (!owner) return {.bad_token = true};
  return {.name = owner->name, .role = owner->role};
}

absl::Status Gatekeeper::Judge(const Caller& caller, std::string_view method) {
  const Rule* rule = RuleOf(method);
  if (rule == nullptr) return absl::PermissionDeniedError("no role may call this method");
  if (caller.may_everything || Allows(*rule, caller.role)) return absl::OkStatus();
  if (caller.bad_token) return absl::UnauthenticatedError("the token is not known here");
  if (caller.name.empty()) {
    return absl::UnauthenticatedError(
        "say who you are, with a certificate (--tls-cert and --tls-key) or a token (--token-file)");
  }
  return absl::PermissionDeniedError(
      absl::StrCat(Describe(caller), " may not do this, only ", AbslView(WhoMay(*rule))));
}

absl::Status Gatekeeper::Check(const Caller& caller, std::string_view method, std::string_view from) const {
  absl::Status judged = Judge(caller, method);
  if (judged.ok()) return judged;
  if (const auto left_out = refusals_.Pass()) {
    spdlog::warn("denied: {} of {} at {}{}", method, Describe(caller), from,
                 *left_out == 0 ? "" : absl::StrCat(" (and ", *left_out, " more)"));
  }
  return judged;
}

}  // namespace gpipe::orchestrator
