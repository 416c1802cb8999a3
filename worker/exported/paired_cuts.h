#ifndef GPIPE_WORKER_EXPORTED_PAIRED_CUTS_H_
#define GPIPE_WORKER_EXPORTED_PAIRED_CUTS_H_

#include <cstddef>
#include <vector>

#include "worker/exported/archive.h"
#include "worker/exported/units.h"

namespace gpipe::worker {

// A program and where it may be cut. What it refers to must outlive it.
struct ProgramCuts {
  const Archive& archive;
  const Units& units;
  std::vector<size_t> begins;  // The first node of each part, ascending from 0.
};

// A cut of a model's training program and the one of its evaluation program that goes with it, by the first nodes
// behind them.
struct PairedCut {
  size_t training = 0;
  size_t evaluation = 0;
};

// The cuts of the training program that one of the evaluation program goes with: between two of them the latter uses no
// parameters, and no buffers that are saved or written to, but those that the former uses there, or nowhere. So
// wherever the training program is cut at some of them, each part of the other one finds its tensors where it is. Both
// parts before the first cut begin with {0, 0}; one of the evaluation program may be empty, but for the last. REQUIRES:
// both are programs of one model.
std::vector<PairedCut> PairCuts(const ProgramCuts& training, const ProgramCuts& evaluation);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_PAIRED_CUTS_H_
