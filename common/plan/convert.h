#ifndef GPIPE_COMMON_PLAN_CONVERT_H_
#define GPIPE_COMMON_PLAN_CONVERT_H_

#include <optional>
#include <vector>

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "pipeline/link.h"
#include "pipeline/schedule.h"
#include "pipeline/timeline.h"

namespace gpipe {

// Between the pipeline library's structures and the messages of a plan. Fields have the same names and meaning.

v1::ActionKind ToProto(pipeline::ActionKind kind);
// Nullopt: UNSPECIFIED, or a kind that this program does not know.
std::optional<pipeline::ActionKind> FromProto(v1::ActionKind kind);

v1::Row ToProto(const std::vector<pipeline::Action>& row);
// REQUIRES: the kinds are known.
std::vector<pipeline::Action> FromProto(const v1::Row& row);

// The kind of the same number, whether this program knows it or not: MakeSchedule refuses others.
pipeline::ScheduleKind FromProto(v1::ScheduleKind kind);

pipeline::TimelineSpec FromProto(const v1::Timeline& timeline);
v1::Timeline ToProto(const pipeline::TimelineSpec& timeline);

// Without a program, and without a learning rate.
v1::Round ToProto(const pipeline::Round& round);
// Nullopt: of a kind that this program does not know.
std::optional<pipeline::Round> FromProto(const v1::Round& round);

// The kind of program that such a round runs; UNSPECIFIED for what computes nothing.
v1::ProgramKind ProgramKindOf(pipeline::RoundKind kind);

// Where no bandwidth is given, bytes take no time.
pipeline::Link FromProto(const v1::LinkSpeed& link);

std::vector<pipeline::Edge> EdgesOf(const v1::Plan& plan);

// One program of the plan as a schedule, with the plan's stage_worker.
pipeline::Schedule ScheduleOf(const v1::Plan& plan, const v1::Program& program);

}  // namespace gpipe

#endif  // GPIPE_COMMON_PLAN_CONVERT_H_
