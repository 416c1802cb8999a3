#include "client/cli/format.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace gpipe::client {
namespace {

// `DATA_TYPE_FLOAT32` -> `float32`.
std::string WithoutPrefix(const std::string& name, size_t prefix) {
  return name.size() <= prefix ? "?" : absl::AsciiStrToLower(name.substr(prefix));
}

}  // namespace

std::string FormatBytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatCount(int64_t count) {
  std::string text = absl::StrCat(count);
  const int first = count < 0 ? 1 : 0;
  for (int at = static_cast<int>(text.size()) - 3; at > first; at -= 3) text.insert(static_cast<size_t>(at), 1, ',');
  return text;
}

std::string FormatClock(absl::Duration duration) {
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(duration + absl::Milliseconds(500)));
  if (seconds < 3600) return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
  return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

std::string FormatSeconds(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (seconds < 10) return absl::StrFormat("%.2f s", seconds);
  return seconds < 100 ? absl::StrFormat("%.1f s", seconds) : FormatClock(duration);
}

std::string FormatShortTime(double seconds) {
  if (seconds < 1e-3) return absl::StrFormat("%.3g us", seconds * 1e6);
  return seconds < 0.1 ? absl::StrFormat("%.3g ms", seconds * 1e3) : FormatSeconds(absl::Seconds(seconds));
}

std::string FormatLoss(double loss) {
  const bool small = loss != 0 && std::abs(loss) < 0.001;  // Of which four digits behind the point show nothing.
  return small ? absl::StrFormat("%.3e", loss) : absl::StrFormat("%.4f", loss);
}

std::string FormatPercent(double share) { return absl::StrFormat("%.0f%%", share * 100); }

std::string FormatTime(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0 && time.nanos() == 0) return "";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S%Ez", absl::FromUnixSeconds(time.seconds()), absl::LocalTimeZone());
}

std::string FormatShape(const Shape& shape) {
  const auto format = [](std::string* out, const v1::Dimension& size) {
    if (size.per_sample() == 0) return absl::StrAppend(out, size.fixed());
    absl::StrAppend(out, size.per_sample() == 1 ? "" : absl::StrCat(size.per_sample(), " "), "B");
    if (size.fixed() != 0) absl::StrAppend(out, size.fixed() < 0 ? " - " : " + ", std::abs(size.fixed()));
  };
  return absl::StrCat("[", absl::StrJoin(shape, ", ", format), "]");
}

std::string FormatDtype(v1::DataType dtype) {
  return WithoutPrefix(v1::DataType_Name(dtype), sizeof("DATA_TYPE_") - 1);
}

std::string FormatPhase(v1::Phase phase) { return WithoutPrefix(v1::Phase_Name(phase), sizeof("PHASE_") - 1); }

std::string FormatActivity(const v1::Activity& activity) {
  std::string text = FormatPhase(activity.phase());
  const bool computing = activity.phase() == v1::PHASE_FORWARD || activity.phase() == v1::PHASE_BACKWARD;
  if ((computing || activity.phase() == v1::PHASE_OPTIMIZER) && activity.step() >= 0) {
    absl::StrAppend(&text, " step ", activity.step());
  }
  if (computing && activity.micro_batch() >= 0) absl::StrAppend(&text, " micro-batch ", activity.micro_batch());
  if (activity.bytes_done() > 0) {
    absl::StrAppend(&text, " ", FormatBytes(activity.bytes_done()), ", ", FormatBytes(activity.bytes_per_second()),
                    "/s");
  }
  return text;
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

void AddField(std::string& text, const char* key, const std::string& value) {
  if (!value.empty()) absl::StrAppend(&text, absl::StrFormat("%-12s %s\n", key, value));
}

std::string Bar(double share, int width) {
  const double clamped = std::isnan(share) ? 0 : std::clamp(share, 0.0, 1.0);
  const auto filled = static_cast<size_t>(std::lround(clamped * width));
  return absl::StrCat("[", std::string(filled, '#'), std::string(static_cast<size_t>(width) - filled, '.'), "]");
}

Table::Table(std::vector<std::string> header) {
  for (std::string& name : header) {
    right_.push_back(!name.empty() && name[0] == '>');
    if (right_.back()) name.erase(0, 1);
  }
  rows_.push_back(std::move(header));
}

void Table::Add(std::vector<std::string> row) {
  row.resize(right_.size());
  rows_.push_back(std::move(row));
}

std::string Table::Render() const {
  std::vector<size_t> widths(right_.size(), 0);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, i == 0 ? "" : "  ", right_[i] ? padding + row[i] : row[i] + padding);
    }
    absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return text;
}

}  // namespace gpipe::client
