#ifndef GPIPE_WORKER_EXPORTED_FRAME_H_
#define GPIPE_WORKER_EXPORTED_FRAME_H_

#include <ATen/core/ivalue.h>

#include <map>
#include <string>
#include <vector>

#include "worker/model/layer.h"

namespace gpipe::worker {

// The values of one run of a graph, by slot.
using Frame = std::vector<c10::IValue>;

// Where each value of a graph lies in its frame.
class Slots {
 public:
  // A new one, or the one it has.
  size_t Add(const std::string& name) { return slots_.emplace(name, slots_.size()).first->second; }
  // REQUIRES: it was added.
  size_t Find(const std::string& name) const { return slots_.at(name); }
  bool Has(const std::string& name) const { return slots_.contains(name); }
  size_t size() const { return slots_.size(); }

 private:
  std::map<std::string, size_t> slots_;
};

// One call of a graph, ready to run. Errors are exceptions of LibTorch's.
class Instruction {
 public:
  virtual ~Instruction() = default;
  virtual void Run(const LayerContext& context, Frame& frame) const = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_FRAME_H_
