#include "client/cli/describe.h"

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/api/job_states.h"
#include "client/api/json.h"
#include "client/cli/format.h"
#include "client/cli/job_output.h"
#include "client/cli/plan_facts.h"
#include "client/cli/render.h"
#include "client/cli/spec_commands.h"
#include "common/timestamp.h"

namespace gpipe::client {
namespace {

// Of the newest events so many are shown.
constexpr int kEvents = 20;

bool Begins(const v1::JobEvent& event) {
  return event.state() == v1::Job::STATE_STARTING && event.actor() == "orchestrator" &&
         absl::StartsWith(event.message(), "attempt ");
}

bool Ends(const v1::JobEvent& event, int attempt) {
  return event.attempt() == attempt && (event.state() == v1::Job::STATE_QUEUED || IsTerminal(event.state()));
}

std::string Title(const char* words) { return absl::StrCat("\n", words, "\n"); }

}  // namespace

std::string RenderAttempts(const v1::ListJobEventsResponse& events) {
  Table table({">ATTEMPT", "BEGAN", ">FOR", "WITH", "ENDED"});
  bool any = false;
  for (auto begin = events.events().begin(); begin != events.events().end(); ++begin) {
    if (!Begins(*begin)) continue;
    const auto end = std::find_if(begin, events.events().end(),
                                  [&](const v1::JobEvent& event) { return Ends(event, begin->attempt()); });
    const bool over = end != events.events().end();
    table.Add({absl::StrCat(begin->attempt()), FormatTime(begin->time()),
               over ? FormatClock(FromTimestamp(end->time()) - FromTimestamp(begin->time())) : "",
               begin->message().substr(std::min(begin->message().size(), begin->message().find(" on ") + 4)),
               over ? absl::StrCat(StateName(end->state()), ": ", end->message().substr(0, end->message().find('\n')))
                    : "goes on"});
    any = true;
  }
  return any ? table.Render() : "";
}

std::string RenderDescription(const v1::Job& job, const v1::ListJobEventsResponse& events,
                              const std::string& forecast) {
  std::string text = RenderJob(job);
  const v1::PlanJobResponse plan = PlanOf(job);
  if (!plan.plan().stages().empty()) absl::StrAppend(&text, Title("PLAN"), RenderPlan(plan));
  if (!forecast.empty()) absl::StrAppend(&text, Title("FORECAST"), forecast);
  if (const std::string attempts = RenderAttempts(events); !attempts.empty()) {
    absl::StrAppend(&text, Title("ATTEMPTS"), attempts);
  }
  const int skipped = std::max(0, events.events_size() - kEvents);
  absl::StrAppend(&text, Title("EVENTS"));
  if (skipped > 0) absl::StrAppend(&text, "(", skipped, " before: gpipe job logs ", job.id(), ")\n");
  for (int i = skipped; i < events.events_size(); ++i) absl::StrAppend(&text, RenderEvent(events.events(i)), "\n");
  absl::StrAppend(&text, Title("SPEC"), ToJson(job.spec(), JsonStyle::kDocument), "\n");
  return text;
}

}  // namespace gpipe::client
