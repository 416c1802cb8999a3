#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_UNREACHABLE_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_UNREACHABLE_H_

#include <string>
#include <string_view>
#include <vector>

#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/cluster/cluster.h"

namespace gpipe::orchestrator {

// A worker of an attempt that can have no part in it, or in any other.
struct UnreachableWorker {
  int index = 0;
  std::string why;
};

// Who of an attempt's workers could not connect with whom, as each says of one of its peers, and whose fault it is.
// Workers tell each other before they fail, so all that have something to say do so at about the same time. Pure but
// for FromRegistry; one thread.
class UnreachableReports {
 public:
  struct Candidate {
    std::string name;
    std::string data_address;
    bool was_reached = false;  // By the peers of an earlier attempt.
  };
  // The workers of an attempt by index.
  static std::vector<Candidate> FromRegistry(WorkerRegistry& registry, const std::vector<std::string>& names);

  // What a worker says when it fails; nothing, unless it names one of so many workers.
  void Add(int reporter, const v1::Failed& failed, int workers);

  bool empty() const { return reports_.empty(); }
  // A worker has said that its own address is of no use: there is nothing to wait for.
  bool certain() const;

  // The workers at fault, by index. It is the one that cannot be connected to, if most of the others say so; where most
  // of them have reached it, the one who says so. Of two workers it is the one that is named, unless only that one has
  // been reached by others before, and both if they name each other. An address that only its own machine reaches
  // (127.0.0.1) is wrong for peers on other machines, whoever else reaches it. REQUIRES: not empty.
  std::vector<UnreachableWorker> Judge(const std::vector<Candidate>& workers) const;

 private:
  struct Report {
    int reporter = 0;
    int peer = 0;
    std::string message;
  };

  int AtFault(const Report& report, const std::vector<Candidate>& workers) const;
  std::string Describe(int index, const std::vector<Candidate>& workers) const;

  std::vector<Report> reports_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_UNREACHABLE_H_
