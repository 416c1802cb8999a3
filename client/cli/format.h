#ifndef GPIPE_CLIENT_CLI_FORMAT_H_
#define GPIPE_CLIENT_CLI_FORMAT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/plan/shape.h"
#include "google/protobuf/timestamp.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::client {

// Values as a person reads them.

std::string FormatBytes(int64_t bytes);              // `64.0 KiB`
std::string FormatCount(int64_t count);              // `2098176` -> `2,098,176`
std::string FormatClock(absl::Duration duration);    // `0:07`, `12:34`, `1:02:03`
std::string FormatSeconds(absl::Duration duration);  // `0.42 s`, `12.3 s`, then as FormatClock
std::string FormatShortTime(double seconds);         // `87.5 us`, `3.42 ms`, then as FormatSeconds
std::string FormatLoss(double loss);
std::string FormatPercent(double share);                          // `23%`
std::string FormatTime(const google::protobuf::Timestamp& time);  // `2026-01-31 12:34:56+01:00`, local; or empty
std::string FormatShape(const Shape& shape);                      // `[B, 8, 8]`, `[4 B + 1, 8]`: B is the micro-batch
std::string FormatDtype(v1::DataType dtype);                      // `float32`
std::string FormatPhase(v1::Phase phase);                         // `forward`
// `backward step 12 micro-batch 3`, `preparing 1.2 GiB, 800.0 MiB/s`
std::string FormatActivity(const v1::Activity& activity);

std::string FirstLine(const std::string& text);

// A line of `key`, padded, and the value; nothing when the value is empty.
void AddField(std::string& text, const char* key, const std::string& value);

// A bar of `width` cells, filled by share, which is taken into 0..1; NaN is empty.
std::string Bar(double share, int width);

// Columns as wide as their widest cell, two spaces between; the last one is not padded. Every line ends with \n.
// Columns whose header begins with '>' are aligned to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  // REQUIRES: as many cells as the header.
  void Add(std::vector<std::string> row);
  std::string Render() const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_FORMAT_H_
