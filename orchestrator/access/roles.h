#ifndef GPIPE_ORCHESTRATOR_ACCESS_ROLES_H_
#define GPIPE_ORCHESTRATOR_ACCESS_ROLES_H_

#include <optional>
#include <string_view>

#include "absl/types/span.h"

namespace gpipe::orchestrator {

// What somebody may do. `submit` may do all that `read` may, `admin` all that `submit` may; `worker` is apart, and so
// is whoever has no role.
enum class Role { kNone, kRead, kSubmit, kAdmin, kWorker };

// The word for it in certificates (OU) and files of tokens. nullopt for any other one.
std::optional<Role> ParseRole(std::string_view word);
std::string_view RoleName(Role role);

// Who may call one RPC.
struct Rule {
  std::string_view method;  // As gRPC has it: `/gpipe.v1.JobService/GetJob`.
  Role least;               // kNone: everybody; kWorker: nobody but workers.
  bool workers_too = false;
};

// One for each RPC of the API: a test over the descriptors sees to that. An RPC without a rule is refused to all.
absl::Span<const Rule> AllRules();
// Null: there is none.
const Rule* RuleOf(std::string_view method);

bool Allows(const Rule& rule, Role role);
// `submit, admin or worker`: in words for those who are refused.
std::string_view WhoMay(const Rule& rule);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ACCESS_ROLES_H_
