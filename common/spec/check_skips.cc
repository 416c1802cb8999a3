#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/spec/checks.h"
#include "common/spec/validator.h"

namespace gpipe::spec {
namespace {

const v1::Pop* PopOf(const v1::Layer& layer) {
  if (layer.has_pop_add()) return &layer.pop_add();
  if (layer.has_pop_cat()) return &layer.pop_cat();
  return nullptr;
}

std::string PathOf(const v1::Model& model, int index) {
  return absl::StrCat("model.sequential[", index, "].", LayerKind(model.sequential(index)));
}

}  // namespace

// Of torchgpipe's five mismatches, one layer that stashes and pops the same name cannot be written here: stash and pop
// are layers of their own. The other four are below.
void CheckSkips(const v1::Model& model, FieldErrors& errors) {
  struct Skip {
    int stashed_at = -1;
    bool popped = false;
  };
  std::map<std::string, Skip> skips;
  for (int i = 0; i < model.sequential_size(); ++i) {
    const v1::Layer& layer = model.sequential(i);
    if (layer.has_stash()) {
      Skip& skip = skips[layer.stash().name()];
      if (skip.stashed_at >= 0) {
        errors.Add(PathOf(model, i), absl::StrCat("'", layer.stash().name(), "' is stashed already, by layer ",
                                                  skip.stashed_at, "; give it another name"));
      } else {
        skip.stashed_at = i;
      }
    }
    if (const v1::Pop* pop = PopOf(layer)) {
      const auto skip = skips.find(pop->name());
      if (skip == skips.end()) {
        errors.Add(PathOf(model, i), absl::StrCat("pops '", pop->name(), "', which no earlier layer stashed"));
      } else if (skip->second.popped) {
        errors.Add(PathOf(model, i), absl::StrCat("'", pop->name(), "' is popped already; a stash is for one pop"));
      } else {
        skip->second.popped = true;
      }
    }
  }
  for (const auto& [name, skip] : skips) {
    if (!skip.popped) {
      errors.Add(PathOf(model, skip.stashed_at), absl::StrCat("stashes '", name, "', which no later layer pops"));
    }
  }
}

}  // namespace gpipe::spec
