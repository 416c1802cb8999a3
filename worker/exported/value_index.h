#ifndef GPIPE_WORKER_EXPORTED_VALUE_INDEX_H_
#define GPIPE_WORKER_EXPORTED_VALUE_INDEX_H_

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/exported/program.h"

namespace gpipe::worker {

// The values of a program by number, so that what walks a program of many thousand nodes compares numbers and not
// names. The program's inputs come first, in their order, then what the nodes make, in theirs: a value has a lower
// number than what is made of it. Immutable.
class ValueIndex {
 public:
  // `program` must outlive the index.
  explicit ValueIndex(const exported::Program& program);
  ValueIndex(ValueIndex&&) = default;  // A copy's names would be those of the original.

  size_t size() const { return names_.size(); }
  // Those numbers below this one are the program's inputs, in the order of Program::inputs.
  size_t inputs() const { return inputs_; }
  // REQUIRES: the program has a value of that name.
  size_t NumberOf(const std::string& name) const { return numbers_.at(name); }
  const std::string& NameOf(size_t value) const { return *names_[value]; }

  // The node that makes the value. REQUIRES: it is no input.
  size_t MakerOf(size_t value) const { return makers_[value - inputs_]; }
  bool IsMadeBefore(size_t value, size_t node) const { return value < inputs_ || MakerOf(value) < node; }
  // Whether it is a number, such as a size, and not a tensor. REQUIRES: it is no input.
  bool IsNumber(size_t value) const { return is_number_[value - inputs_]; }

  // What a node reads, in the order of its arguments, and what it makes, in the order of its results.
  const std::vector<size_t>& ReadBy(size_t node) const { return reads_[node]; }
  const std::vector<size_t>& MadeBy(size_t node) const { return makes_[node]; }
  // What an argument is made of.
  std::vector<size_t> ValuesOf(const exported::Argument& argument) const;

 private:
  size_t Add(const std::string& name);
  void AddNode(const exported::Node& node, size_t position);

  std::vector<const std::string*> names_;
  std::unordered_map<std::string, size_t> numbers_;
  size_t inputs_ = 0;
  std::vector<size_t> makers_;
  std::vector<bool> is_number_;
  std::vector<std::vector<size_t>> reads_, makes_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_VALUE_INDEX_H_
