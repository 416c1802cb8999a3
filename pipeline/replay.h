#ifndef GPIPE_PIPELINE_REPLAY_H_
#define GPIPE_PIPELINE_REPLAY_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/schedule.h"

namespace gpipe::pipeline {

// Plays the rows of a lowered schedule against each other: who may act next, and who waits for whom. What the validator
// and the simulator have in common. Messages of a channel (edge and direction) arrive in the order they were sent;
// REDUCE_GRAD begins when every worker has come to it.
class Replay {
 public:
  // Keeps a reference to the schedule.
  explicit Replay(const Schedule& schedule)
      : schedule_(schedule), next_(schedule.rows.size(), 0), reduces_(schedule.rows.size(), 0) {}

  int workers() const { return static_cast<int>(next_.size()); }
  bool Done(int worker) const { return next_[worker] == schedule_.rows[worker].size(); }
  const Action& Next(int worker) const { return schedule_.rows[worker][next_[worker]]; }

  // Whether the worker has an action left and it waits for nothing: all but a receive whose message is not sent yet,
  // and a REDUCE_GRAD that others have not come to.
  bool Ready(int worker) const;

  // Takes the next action. `sent_at` is when a send's message arrives. Returns when a receive's message arrived, else
  // 0. REQUIRES: Ready(worker).
  double Take(int worker, double sent_at = 0);

  // The SEND whose message the worker's next action, a ready receive, would get.
  const Action& Arriving(int worker) const;

  // Each worker's next action, for an error when nobody is ready.
  std::string Standstill() const;

 private:
  struct Message {
    const Action* send;  // In schedule_.
    double arrives;
  };
  struct Channel {
    std::vector<Message> messages;
    size_t taken = 0;
  };
  using ChannelKey = std::pair<int, bool>;  // Edge, forward.

  static ChannelKey KeyOf(const Action& action);
  bool MessageIsThere(const Action& receive) const;
  bool AllCameToReduce(int worker) const;

  const Schedule& schedule_;
  std::vector<size_t> next_;  // By worker.
  std::vector<int> reduces_;  // By worker: REDUCE_GRADs taken.
  std::map<ChannelKey, Channel> channels_;
};

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_REPLAY_H_
