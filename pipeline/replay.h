#ifndef GPIPE_PIPELINE_REPLAY_H_
#define GPIPE_PIPELINE_REPLAY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pipeline/schedule.h"

namespace gpipe::pipeline {

// Plays the rows of a lowered schedule against each other: who may act next, and who waits for whom. What the validator
// and the simulator have in common. Messages of a channel (here: edge and direction) arrive in the order they were
// sent, and at most MaxUnreceived of them are sent ahead; REDUCE_GRAD begins when every worker has come to it.
//
// A message counts as received when its RECV is taken, as on CUDA. On CPU the engine posts receives earlier, which only
// lets senders go on sooner: rows that run to the end here do there too.
class Replay {
 public:
  // One end's part of a message.
  struct Event {
    const Action* action;  // In the schedule.
    double at;             // When a SEND's message arrives; when a RECV is over.
  };

  // Keeps references to both. REQUIRES: every SEND and RECV names one of the edges.
  Replay(const Schedule& schedule, const std::vector<Edge>& edges);

  int workers() const { return static_cast<int>(next_.size()); }
  bool Done(int worker) const { return next_[worker] == schedule_.rows[worker].size(); }
  const Action& Next(int worker) const { return schedule_.rows[worker][next_[worker]]; }

  // Whether the worker has an action left and it waits for nothing: all but a receive whose message is not sent yet, a
  // send whose channel is full, and a REDUCE_GRAD that others have not come to.
  bool Ready(int worker) const;

  // What the worker's next action needed from the other end: a RECV the SEND whose message it gets, a SEND the RECV
  // that made place for it. Null: nothing. Valid until the next Take. REQUIRES: Ready(worker).
  const Event* Needed(int worker) const;

  // Takes the next action, which is over at `end`; what it sends arrives `transit` later. REQUIRES: Ready(worker).
  void Take(int worker, double end = 0, double transit = 0);

  // Each worker's next action, for an error when nobody is ready.
  std::string Standstill() const;

 private:
  struct Channel {
    std::vector<Event> sent, received;
  };
  // An event of the other end by its number; a negative one is before all, and there.
  struct Need {
    const std::vector<Event>& events;
    int64_t number;
  };

  size_t ChannelOf(const Action& transfer) const;
  int PlacesFor(const Action& send) const;
  Need NeedOf(const Action& transfer) const;
  bool AllCameToReduce(int worker) const;
  std::string Describe(int worker) const;

  const Schedule& schedule_;
  const std::vector<Edge>& edges_;
  std::vector<size_t> next_;  // By worker.
  std::vector<int> reduces_;  // By worker: REDUCE_GRADs taken.
  std::vector<Channel> channels_;
};

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_REPLAY_H_
