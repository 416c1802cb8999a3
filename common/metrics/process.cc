#include "common/metrics/process.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>
#include <system_error>

#include "absl/strings/numbers.h"
#include "common/descriptor_limit.h"
#include "common/string_view.h"
#include "common/version.h"

namespace gpipe::metrics {
namespace {

namespace fs = std::filesystem;
using prometheus::MetricType;

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Of /proc/self/stat, those behind the program's name, which may hold anything: the first is field 3.
std::vector<std::string> StatFields() {
  const std::string text = ReadAll("/proc/self/stat");
  std::istringstream rest(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  return {std::istream_iterator<std::string>(rest), std::istream_iterator<std::string>()};
}

double Field(const std::vector<std::string>& fields, size_t number) {
  double value = 0;
  return number - 3 < fields.size() && absl::SimpleAtod(fields[number - 3], &value) ? value : 0;
}

// When the system was started.
absl::Time BootTime() {
  std::istringstream lines(ReadAll("/proc/stat"));
  std::string word;
  int64_t seconds = 0;
  while (lines >> word) {
    if (word == "btime" && lines >> seconds) break;
  }
  return absl::FromUnixSeconds(seconds);
}

std::vector<std::string> ThreadNames() {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator task("/proc/self/task", error), end; !error && task != end; task.increment(error)) {
    std::string name = ReadAll(task->path() / "comm");  // Empty: it has just ended.
    if (!name.empty() && name.back() == '\n') name.pop_back();
    names.push_back(name);
  }
  return names;
}

const std::vector<Definition> kDefinitions = {
    {"gpipe_build_info", MetricType::Gauge, {"version"}, "Always 1; what runs."},
    {"process_cpu_seconds_total", MetricType::Counter, {}, "Processor time of the process, user and system."},
    {"process_max_fds", MetricType::Gauge, {}, "Files and connections that it may have open."},
    {"process_open_fds", MetricType::Gauge, {}, "Files and connections that it has open."},
    {"process_resident_memory_bytes", MetricType::Gauge, {}, "Its memory that is in RAM."},
    {"process_start_time_seconds", MetricType::Gauge, {}, "When it was started, since 1970."},
    {"process_threads", MetricType::Gauge, {}, "Its threads."},
    {"process_virtual_memory_bytes", MetricType::Gauge, {}, "Its address space."},
};

}  // namespace

ProcessFacts ReadProcess() {
  const std::vector<std::string> stat = StatFields();
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  ProcessFacts facts;
  facts.cpu_seconds = (Field(stat, 14) + Field(stat, 15)) / ticks;
  facts.started = BootTime() + absl::Seconds(Field(stat, 22) / ticks);
  facts.virtual_bytes = static_cast<int64_t>(Field(stat, 23));
  facts.resident_bytes = static_cast<int64_t>(Field(stat, 24)) * sysconf(_SC_PAGESIZE);
  facts.open_files = static_cast<int64_t>(OpenDescriptors().value_or(0));
  facts.most_files = static_cast<int64_t>(MostDescriptors());
  facts.threads = ThreadNames();
  return facts;
}

const std::vector<Definition>& ProcessDefinitions() { return kDefinitions; }

void AddProcess(const ProcessFacts& facts, Samples& samples) {
  samples.Add(kDefinitions[0], 1, {std::string(kVersion)});
  samples.Add(kDefinitions[1], facts.cpu_seconds);
  samples.Add(kDefinitions[2], static_cast<double>(facts.most_files));
  samples.Add(kDefinitions[3], static_cast<double>(facts.open_files));
  samples.Add(kDefinitions[4], static_cast<double>(facts.resident_bytes));
  samples.Add(kDefinitions[5], absl::ToDoubleSeconds(facts.started - absl::UnixEpoch()));
  samples.Add(kDefinitions[6], static_cast<double>(facts.threads.size()));
  samples.Add(kDefinitions[7], static_cast<double>(facts.virtual_bytes));
}

}  // namespace gpipe::metrics
