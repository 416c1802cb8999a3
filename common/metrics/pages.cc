#include "common/metrics/pages.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/metrics/process.h"
#include "common/string_view.h"
#include "common/version.h"
#include "prometheus/text_serializer.h"

namespace gpipe::metrics {
namespace {

constexpr char kTextFormat[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr std::string_view kReadyPath = "/readyz/";

std::string LineOf(const Check& check) {
  if (check.status.ok()) return absl::StrCat(check.name, " ok\n");
  return absl::StrCat(check.name, " failed: ", check.status.message(), "\n");
}

HttpResponse AnswerOf(const std::vector<Check>& checks) {
  bool all_ok = true;
  std::string lines;
  for (const Check& check : checks) {
    all_ok = all_ok && check.status.ok();
    absl::StrAppend(&lines, LineOf(check));
  }
  absl::StrAppend(&lines, all_ok ? "ready\n" : "not ready\n");
  return HttpResponse::Text(all_ok ? 200 : 503, lines);
}

HttpResponse AnswerOne(const std::vector<Check>& checks, std::string_view name) {
  const auto found = std::ranges::find(checks, name, &Check::name);
  if (found == checks.end()) return HttpResponse::Text(404, absl::StrCat("there is no check ", AbslView(name), "\n"));
  return HttpResponse::Text(found->status.ok() ? 200 : 503, LineOf(*found));
}

HttpResponse Live(const absl::Status& live) {
  return live.ok() ? HttpResponse::Text(200, "live\n")
                   : HttpResponse::Text(503, absl::StrCat("not live: ", live.message(), "\n"));
}

std::string DescribeThreads(const std::vector<std::string>& names) {
  std::map<std::string, int> counts;
  for (const std::string& name : names) ++counts[name];
  std::string text = absl::StrCat("threads ", names.size(), "\n");
  for (const auto& [name, count] : counts)
    absl::StrAppend(&text, "  ", name, count > 1 ? absl::StrCat(" x ", count) : "", "\n");
  return text;
}

std::string DescribeProcess(const std::string& program) {
  const ProcessFacts facts = ReadProcess();
  return absl::StrCat(program, " ", AbslView(kVersion), "\nup ",
                      absl::FormatDuration(absl::Trunc(absl::Now() - facts.started, absl::Seconds(1))), " since ",
                      absl::FormatTime(absl::RFC3339_sec, facts.started, absl::UTCTimeZone()), "\nmemory ",
                      facts.resident_bytes >> 20, " MiB, processor ", static_cast<int64_t>(facts.cpu_seconds),
                      " s, files ", facts.open_files, " of ", facts.most_files, "\n", DescribeThreads(facts.threads));
}

}  // namespace

void AddPages(const std::string& program, Pages pages, HttpServer& server) {
  server.Handle("GET", "/metrics", [metrics = std::move(pages.metrics)](const HttpRequest&) {
    HttpResponse response = HttpResponse::Text(200, prometheus::TextSerializer().Serialize(metrics()));
    response.content_type = kTextFormat;
    return response;
  });
  server.Handle("GET", "/livez", [live = std::move(pages.live)](const HttpRequest&) { return Live(live()); });
  server.Handle("GET", "/readyz", [ready = pages.ready](const HttpRequest&) { return AnswerOf(ready()); });
  server.Handle("GET", absl::StrCat(AbslView(kReadyPath), "*"),
                [ready = std::move(pages.ready)](const HttpRequest& request) {
                  return AnswerOne(ready(), std::string_view(request.path).substr(kReadyPath.size()));
                });
  server.Handle("GET", "/statusz", [program, status = std::move(pages.status)](const HttpRequest&) {
    return HttpResponse::Text(200, DescribeProcess(program) + status());
  });
}

}  // namespace gpipe::metrics
