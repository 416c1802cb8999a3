#include "common/log_output.h"

#include <memory>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/log_formatter.h"
#include "common/printable.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "nlohmann/json.hpp"
#include "spdlog/formatter.h"
#include "spdlog/sinks/rotating_file_sink.h"
#include "spdlog/spdlog.h"

namespace gpipe {
namespace {

using Source = std::shared_ptr<const LogContextSource>;

// The word that follows `prefix` in `text`, which is cut off with it; empty when there is none.
std::string_view TakeWord(std::string_view prefix, std::string_view& text) {
  if (!text.starts_with(prefix)) return {};
  const std::string_view rest = text.substr(prefix.size());
  const std::string_view word = rest.substr(0, rest.find_first_of(" :,;"));
  text = rest.substr(word.size());
  return word;
}

class JsonFormatter final : public spdlog::formatter {
 public:
  explicit JsonFormatter(Source source) : source_(std::move(source)) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const std::string text = Printable({message.payload.data(), message.payload.size()});
    nlohmann::ordered_json entry;
    entry["ts"] = absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ", absl::FromChrono(message.time), absl::UTCTimeZone());
    entry["level"] = std::string_view(spdlog::level::to_string_view(message.level).data(),
                                      spdlog::level::to_string_view(message.level).size());
    entry["program"] = std::string_view(message.logger_name.data(), message.logger_name.size());
    AddContext(ContextOf(text), source_ == nullptr ? LogContext{} : source_->Now(), entry);
    entry["message"] = text;
    const std::string line = entry.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(source_); }

 private:
  static void AddContext(const LogContext& said, const LogContext& known, nlohmann::ordered_json& entry) {
    const bool of_another = !said.job.empty() && said.job != known.job;
    const LogContext& own = of_another ? said : known;
    const std::string& worker = said.worker.empty() ? known.worker : said.worker;
    if (!worker.empty()) entry["worker"] = worker;
    if (!own.job.empty()) entry["job"] = own.job;
    if (const int attempt = said.attempt > 0 ? said.attempt : own.attempt; attempt > 0) entry["attempt"] = attempt;
    if (own.stage >= 0) entry["stage"] = own.stage;
    if (own.step >= 0) entry["step"] = own.step;
  }

  const Source source_;
};

absl::Status LogIntoFile(const LogOutput& output, spdlog::logger& logger) {
  spdlog::sink_ptr file;
  try {
    file = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(output.file, output.max_file_bytes,
                                                                  LogOutput::kOldFiles);
  } catch (const spdlog::spdlog_ex& error) {
    return absl::InvalidArgumentError(absl::StrCat("--log-file ", output.file, ": ", error.what()));
  }
  for (const spdlog::sink_ptr& sink : logger.sinks()) sink->set_level(spdlog::level::err);
  logger.sinks().push_back(std::move(file));
  logger.flush_on(spdlog::level::trace);
  return absl::OkStatus();
}

}  // namespace

LogContext ContextOf(std::string_view text) {
  LogContext context;
  context.worker = TakeWord("worker ", text);
  context.job = TakeWord("job ", text);
  const std::string_view attempt = context.job.empty() ? std::string_view() : TakeWord(" attempt ", text);
  if (!absl::SimpleAtoi(AbslView(attempt), &context.attempt)) context.attempt = 0;
  return context;
}

void LogContextSource::Follow(Function context) {
  absl::MutexLock lock(&mutex_);
  context_ = std::move(context);
}

LogContext LogContextSource::Now() const {
  absl::MutexLock lock(&mutex_);
  return context_ == nullptr ? LogContext{} : context_();
}

absl::Status SetLogOutput(const LogOutput& output, std::shared_ptr<const LogContextSource> source) {
  spdlog::logger& logger = *spdlog::default_logger();
  if (!output.file.empty()) GPIPE_RETURN_IF_ERROR(LogIntoFile(output, logger));
  if (output.json) {
    logger.set_formatter(std::make_unique<JsonFormatter>(std::move(source)));
  } else {
    logger.set_formatter(MakeTextFormatter());
  }
  return absl::OkStatus();
}

}  // namespace gpipe
