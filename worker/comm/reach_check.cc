// What the workers of an attempt tell each other about whom they reach.

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/comm/reach.h"

namespace gpipe::worker {
namespace {

// Two repetitions of a lost first packet.
constexpr absl::Duration kPatience = absl::Seconds(4);
constexpr char kUnreachablePeerUrl[] = "gpipe/unreachable_peer";

std::string ReachedKey(int rank) { return absl::StrCat("reached/", rank); }

// Looks for an abort of the rendezvous, which has no event for it but a refused call.
absl::Status NotAborted(Rendezvous& rendezvous, int rank) {
  const absl::Status looked = rendezvous.Get(ReachedKey(rank), absl::ZeroDuration()).status();
  return absl::IsDeadlineExceeded(looked) ? absl::OkStatus() : looked;
}

// `10.0.0.1 port 41234`
std::string WithPort(const std::string& endpoint) { return absl::StrReplaceAll(endpoint, {{" ", " port "}}); }

std::vector<int> ParseRanks(const std::string& text) {
  std::vector<int> ranks;
  for (const absl::string_view word : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    if (int rank = 0; absl::SimpleAtoi(word, &rank)) ranks.push_back(rank);
  }
  return ranks;
}

// Of those that this worker cannot reach the one that most others cannot reach either.
int MostMissed(const std::map<int, std::string>& unreachable, const std::map<int, int>& votes) {
  const auto fewer = [&](const auto& a, const auto& b) { return votes.at(a.first) < votes.at(b.first); };
  return std::max_element(unreachable.begin(), unreachable.end(), fewer)->first;
}

}  // namespace

absl::Status CheckReach(int rank, int size, const std::map<int, std::string>& endpoints, Rendezvous& rendezvous,
                        absl::Time deadline) {
  GPIPE_ASSIGN_OR_RETURN(const auto unreachable, FindUnreachable(endpoints, std::min(kPatience, deadline - absl::Now()),
                                                                 [&] { return NotAborted(rendezvous, rank); }));
  const std::string own =
      absl::StrJoin(unreachable, ",", [](std::string* out, const auto& one) { absl::StrAppend(out, one.first); });
  GPIPE_RETURN_IF_ERROR(rendezvous.Put(ReachedKey(rank), own));
  std::map<int, int> votes;
  std::string others;
  for (int other = 0; other < size; ++other) {
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    GPIPE_ASSIGN_OR_RETURN(const std::string theirs, rendezvous.Get(ReachedKey(other), left));
    for (const int missed : ParseRanks(theirs)) ++votes[missed];
    if (!theirs.empty() && others.empty()) others = absl::StrCat("worker ", other, " cannot connect with ", theirs);
  }
  if (!unreachable.empty()) {
    const int peer = MostMissed(unreachable, votes);
    return WithUnreachablePeer(
        absl::UnavailableError(absl::StrCat("cannot connect with worker ", peer, " at ", WithPort(endpoints.at(peer)),
                                            ": ", unreachable.at(peer))),
        peer);
  }
  return others.empty() ? absl::OkStatus() : absl::UnavailableError(others);
}

absl::Status WithUnreachablePeer(absl::Status status, int rank) {
  status.SetPayload(kUnreachablePeerUrl, absl::Cord(absl::string_view(absl::StrCat(rank))));
  return status;
}

std::optional<int> UnreachablePeer(const absl::Status& status) {
  const auto payload = status.GetPayload(kUnreachablePeerUrl);
  int rank = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &rank)) return std::nullopt;
  return rank;
}

absl::Status WithoutUnreachablePeer(absl::Status status) {
  status.ErasePayload(kUnreachablePeerUrl);
  return status;
}

}  // namespace gpipe::worker
