#include "orchestrator/scheduling/profiler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

// Part of what a profile is kept under: changes when workers measure something else than they did.
constexpr char kMeasured[] = "with the loss and sums of gradients, GPUs captured, memory by value";

}  // namespace

void Profiler::Measure(v1::Inspect request, const std::string& kind, size_t layers, const std::string& purpose,
                       Inspector::Callback done) {
  request.clear_id();
  const std::string fingerprint = absl::StrCat(Fingerprint(request), " ", kMeasured);
  if (auto known = Remembered(fingerprint, kind, layers); known.has_value()) {
    spdlog::info("{}: the profile for {} comes from the cache", purpose, kind);
    return done(*std::move(known));
  }
  spdlog::info("{}: measuring the layers on {}", purpose, kind);
  inspector_->Measure(
      std::move(request), kind, kTimeout, [=, this, done = std::move(done)](absl::StatusOr<LayerInfos> measured) {
        if (measured.ok() && measured->size() != layers) {
          return done(absl::InternalError(
              absl::StrCat(kind, " cuts the model into ", measured->size(), " parts, another worker into ", layers)));
        }
        if (measured.ok()) Remember(fingerprint, kind, *measured);
        done(std::move(measured));
      });
}

// The store is only a cache here: without it there is another measurement.
std::optional<LayerInfos> Profiler::Remembered(const std::string& fingerprint, const std::string& kind, size_t layers) {
  absl::StatusOr<std::optional<v1::Inspected>> known = store_->FindProfile(fingerprint, kind);
  if (!known.ok()) spdlog::warn("looking for a profile: {}", StdView(known.status().message()));
  if (!known.ok() || !known->has_value() || static_cast<size_t>((*known)->layers_size()) != layers) return std::nullopt;
  return LayerInfos((*known)->layers().begin(), (*known)->layers().end());
}

void Profiler::Remember(const std::string& fingerprint, const std::string& kind, const LayerInfos& layers) {
  v1::Inspected profile;
  profile.mutable_layers()->Assign(layers.begin(), layers.end());
  const absl::Status stored = store_->AddProfile(fingerprint, kind, profile);
  if (!stored.ok()) spdlog::warn("keeping a profile: {}", StdView(stored.message()));
}

}  // namespace gpipe::orchestrator
