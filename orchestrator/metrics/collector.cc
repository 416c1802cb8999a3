#include "orchestrator/metrics/collector.h"

#include <iterator>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/metrics/process.h"
#include "common/string_view.h"
#include "orchestrator/cluster/ask_loop.h"
#include "orchestrator/jobs/store.h"
#include "orchestrator/metrics/cluster_samples.h"
#include "orchestrator/metrics/definitions.h"

namespace gpipe::orchestrator {
namespace {

absl::Status NoAnswer(absl::Duration patience) {
  return absl::UnavailableError(absl::StrCat("has not answered within ", absl::FormatDuration(patience)));
}

void AddDisk(const std::filesystem::path& state_dir, metrics::Samples& samples) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(state_dir, error);
  if (!error) {
    samples.Add(metric::kDiskFree, static_cast<double>(space.available));
    samples.Add(metric::kDiskSize, static_cast<double>(space.capacity));
  }
  double database = 0;
  for (const char* ending : {"", "-wal"}) {
    const auto size = std::filesystem::file_size(state_dir / absl::StrCat(Store::kDatabaseFile, ending), error);
    if (!error) database += static_cast<double>(size);
  }
  samples.Add(metric::kDatabaseBytes, database);
}

}  // namespace

metrics::Pages Collector::Pages() {
  return {.metrics = [this] { return Metrics(); },
          .live = [this] { return Live(); },
          .ready = [this] { return Ready(); },
          .status = [this] { return Status(); }};
}

std::vector<prometheus::MetricFamily> Collector::Metrics() const {
  const absl::Time asked = parts_.clock->Now();
  std::optional<metrics::Samples> of_loop = AskLoop<metrics::Samples>(
      *parts_.loop,
      [parts = parts_, asked] {
        metrics::Samples samples;
        samples.Add(metric::kLoopDelay, absl::ToDoubleSeconds(parts.clock->Now() - asked));
        samples.Add(metric::kDiskFull, parts.disk->full() ? 1 : 0);
        AddJobs(*parts.book, *parts.counters, parts.clock->Now(), samples);
        AddWorkers(parts.cluster->registry(), parts.clock->Now(), samples);
        return samples;
      },
      kPatience);
  metrics::Samples samples = of_loop.value_or(metrics::Samples());
  samples.Add(metric::kLoopUp, of_loop.has_value() ? 1 : 0);
  AddDisk(parts_.state_dir, samples);
  metrics::AddProcess(metrics::ReadProcess(), samples);
  std::vector<prometheus::MetricFamily> families = samples.Take();
  std::vector<prometheus::MetricFamily> counted = parts_.counted->Collect();
  families.insert(families.end(), std::make_move_iterator(counted.begin()), std::make_move_iterator(counted.end()));
  return families;
}

absl::Status Collector::Live() const {
  const bool turns = AskLoop<bool>(*parts_.loop, [] { return true; }, kPatience).has_value();
  return turns ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("event_loop ", NoAnswer(kPatience).message()));
}

std::vector<metrics::Check> Collector::Ready() const {
  struct Facts {
    absl::Status database;
    std::string disk;
  };
  const std::optional<Facts> facts = AskLoop<Facts>(
      *parts_.loop,
      [parts = parts_] {
        return Facts{.database = parts.book->store().ListJobs(1, "", {}).status(), .disk = parts.disk->why()};
      },
      kReadyPatience);
  const absl::Status unknown = facts.has_value() ? absl::OkStatus() : absl::UnknownError("the event loop does not say");
  const absl::Status disk =
      !facts.has_value() || facts->disk.empty() ? unknown : absl::ResourceExhaustedError(facts->disk);
  return {
      {"serving", shutting_down_ ? absl::UnavailableError("the orchestrator is shutting down") : absl::OkStatus()},
      {"event_loop", facts.has_value() ? absl::OkStatus() : NoAnswer(kReadyPatience)},
      {"database", facts.has_value() ? facts->database : unknown},
      {"disk", disk},
  };
}

std::string Collector::Status() const {
  const std::optional<std::string> described = AskLoop<std::string>(
      *parts_.loop, [parts = parts_] { return DescribeJobs(*parts.book) + DescribeWorkers(parts.cluster->registry()); },
      kPatience);
  return absl::StrCat("state in ", parts_.state_dir.string(), "\n",
                      described.value_or("the event loop does not answer\n"));
}

}  // namespace gpipe::orchestrator
