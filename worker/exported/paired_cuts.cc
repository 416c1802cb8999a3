#include "worker/exported/paired_cuts.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

namespace gpipe::worker {
namespace {

using exported::Input;
using exported::InputKind;

// The parts that use a tensor, ascending.
using Uses = std::vector<size_t>;

size_t NodesOf(const ProgramCuts& program) { return program.archive.program().graph.nodes.size(); }

std::vector<const Input*> InputsOf(const ProgramCuts& program, size_t part) {
  const size_t last = part + 1 < program.begins.size() ? program.begins[part + 1] : NodesOf(program);
  return program.units.InputsOf(program.units.PartOf(program.begins[part], last, {}));
}

// Of tensors of which there must be one for both programs: those that are saved, or are written to.
std::map<std::string, Uses> UsesOf(const ProgramCuts& training) {
  const auto& written = training.units.aliasing().written;
  std::map<std::string, Uses> uses;
  for (size_t part = 0; part < training.begins.size(); ++part) {
    for (const Input* input : InputsOf(training, part)) {
      if (!IsInState(*input) && !written.contains(input->value)) continue;
      Uses& parts = uses[training.archive.KeyOf(training.archive.CanonicalName(input->name))];
      if (parts.empty() || parts.back() != part) parts.push_back(part);
    }
  }
  return uses;
}

class Pairing {
 public:
  Pairing(const ProgramCuts& training, const ProgramCuts& evaluation)
      : training_(training), evaluation_(evaluation), uses_(UsesOf(training)) {
    for (size_t part = 0; part < evaluation.begins.size(); ++part) AddPart(part);
  }

  std::vector<PairedCut> Run() {
    std::vector<PairedCut> cuts = {{0, 0}};
    size_t begin = 0, other_begin = 0;  // Parts at which the last pair begins.
    for (size_t part = 1; part < training_.begins.size(); ++part) {
      const size_t first = std::max(other_begin, FirstBehind(part));
      const size_t last = LastBefore(begin, part, other_begin);
      if (first > last) continue;
      const size_t other = Choose(part, first, last);
      cuts.push_back({training_.begins[part], evaluation_.begins[other]});
      begin = part;
      other_begin = other;
    }
    return cuts;
  }

 private:
  void AddPart(size_t part) {
    std::set<const Uses*> needs;
    for (const Input* input : InputsOf(evaluation_, part)) {
      if (input->kind == InputKind::kConstant) continue;
      const auto found = uses_.find(evaluation_.archive.KeyOf(evaluation_.archive.CanonicalName(input->name)));
      if (found != uses_.end()) needs.insert(&found->second);
    }
    needs_.emplace_back(needs.begin(), needs.end());
  }

  // From which part on the evaluation program uses only what the other one uses from `part` on, too.
  size_t FirstBehind(size_t part) {
    const auto is_behind = [&](const Uses* uses) { return uses->back() >= part; };
    for (size_t other = needs_.size(); other-- > first_behind_;) {
      if (std::ranges::all_of(needs_[other], is_behind)) continue;
      first_behind_ = other + 1;
      break;
    }
    return first_behind_;
  }

  // Up to which part, from `other` on, it uses only what the other one uses in [begin, end). The last part stays
  // behind.
  size_t LastBefore(size_t begin, size_t end, size_t other) const {
    const auto is_within = [&](const Uses* uses) {
      const auto next = std::ranges::lower_bound(*uses, begin);
      return next != uses->end() && *next < end;
    };
    while (other + 1 < needs_.size() && std::ranges::all_of(needs_[other], is_within)) ++other;
    return other;
  }

  // Any will do; one in the same module is most like the other program's cut.
  size_t Choose(size_t part, size_t first, size_t last) const {
    const auto module_at = [](const ProgramCuts& program, size_t begin) -> const std::string& {
      return program.archive.program().graph.nodes[program.begins[begin]].module;
    };
    for (size_t other = first; other <= last; ++other) {
      if (module_at(evaluation_, other) == module_at(training_, part)) return other;
    }
    return last;
  }

  const ProgramCuts& training_;
  const ProgramCuts& evaluation_;
  const std::map<std::string, Uses> uses_;
  std::vector<std::vector<const Uses*>> needs_;  // By part of the evaluation program.
  size_t first_behind_ = 0;                      // Of the last part asked for; later ones have no smaller one.
};

}  // namespace

std::vector<PairedCut> PairCuts(const ProgramCuts& training, const ProgramCuts& evaluation) {
  return Pairing(training, evaluation).Run();
}

}  // namespace gpipe::worker
