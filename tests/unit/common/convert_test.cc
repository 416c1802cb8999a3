#include "common/plan/convert.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

using pipeline::Action;
using pipeline::ActionKind;

TEST(ConvertTest, RowsThereAndBackWithEveryKind) {
  std::vector<Action> row;
  for (int kind = 0; kind < static_cast<int>(pipeline::kKindTraits.size()); ++kind) {
    row.push_back({.stage = kind + 1,
                   .kind = pipeline::kKindTraits[kind].kind,
                   .micro_batch = kind + 2,
                   .cycle = kind + 3,
                   .edge = kind - 1,
                   .checkpointed = kind % 2 == 0});
  }
  const v1::Row proto = ToProto(row);
  ASSERT_EQ(proto.actions_size(), static_cast<int>(row.size()));
  EXPECT_EQ(proto.actions(0).kind(), v1::ACTION_KIND_FORWARD);
  EXPECT_EQ(proto.actions(5).kind(), v1::ACTION_KIND_SEND_BACKWARD);
  const std::vector<Action> back = FromProto(proto);
  ASSERT_EQ(back.size(), row.size());
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_EQ(back[i].stage, row[i].stage);
    EXPECT_EQ(back[i].kind, row[i].kind);
    EXPECT_EQ(back[i].micro_batch, row[i].micro_batch);
    EXPECT_EQ(back[i].cycle, row[i].cycle);
    EXPECT_EQ(back[i].edge, row[i].edge);
    EXPECT_EQ(back[i].checkpointed, row[i].checkpointed);
  }
}

TEST(ConvertTest, EveryKindOfTheProtocolIsAnActionOfTheSameName) {
  const google::protobuf::EnumDescriptor& kinds = *v1::ActionKind_descriptor();
  ASSERT_EQ(kinds.value_count(), static_cast<int>(pipeline::kKindTraits.size()) + 1);
  for (int i = 1; i < kinds.value_count(); ++i) {
    const std::optional<ActionKind> kind = FromProto(static_cast<v1::ActionKind>(kinds.value(i)->number()));
    ASSERT_TRUE(kind.has_value()) << kinds.value(i)->name();
    EXPECT_EQ(ToProto(*kind), kinds.value(i)->number());
    EXPECT_THAT(kinds.value(i)->name(), testing::StartsWith("ACTION_KIND_" + std::string(KindName(*kind))));
  }
}

TEST(ConvertTest, AnUnknownKindIsNoAction) {
  EXPECT_EQ(FromProto(v1::ACTION_KIND_UNSPECIFIED), std::nullopt);
  EXPECT_EQ(FromProto(static_cast<v1::ActionKind>(99)), std::nullopt);
}

TEST(ConvertTest, TimelinesThereAndBack) {
  const pipeline::TimelineSpec timeline = {.samples = 1,
                                           .batch_size = 2,
                                           .steps = 3,
                                           .drop_last = true,
                                           .evaluate_every = 4,
                                           .evaluation_samples = 5,
                                           .checkpoint_every = 6,
                                           .first_step = 7};
  const pipeline::TimelineSpec back = FromProto(ToProto(timeline));
  EXPECT_EQ(back.samples, 1);
  EXPECT_EQ(back.batch_size, 2);
  EXPECT_EQ(back.steps, 3);
  EXPECT_TRUE(back.drop_last);
  EXPECT_EQ(back.evaluate_every, 4);
  EXPECT_EQ(back.evaluation_samples, 5);
  EXPECT_EQ(back.checkpoint_every, 6);
  EXPECT_EQ(back.first_step, 7);
}

TEST(ConvertTest, RoundsOfEveryKindThereAndBack) {
  const google::protobuf::EnumDescriptor& kinds = *v1::RoundKind_descriptor();
  for (int i = 1; i < kinds.value_count(); ++i) {
    pipeline::Round round = {
        .index = 1, .step = 2, .epoch = 3, .first_sample = 4, .batch_size = 5, .last_of_kind = true};
    round.kind = static_cast<pipeline::RoundKind>(i - 1);
    v1::Round proto = ToProto(round);
    EXPECT_EQ(proto.kind(), kinds.value(i)->number());
    EXPECT_EQ(proto.program(), -1);
    EXPECT_EQ(FromProto(proto), round);
    proto.set_kind(v1::ROUND_KIND_UNSPECIFIED);
    EXPECT_EQ(FromProto(proto), std::nullopt);
  }
}

TEST(ConvertTest, EdgesAndScheduleOfAPlan) {
  v1::Plan plan;
  plan.add_stages();
  plan.add_stages();
  plan.add_stage_worker(0);
  plan.add_stage_worker(1);
  v1::Edge* edge = plan.add_edges();
  edge->set_value("x0");
  edge->set_from_stage(0);
  edge->set_to_stage(1);
  edge->set_requires_grad(true);
  v1::Program* program = plan.add_programs();
  program->set_cycles(5);
  for (const int size : {3, 3, 2}) program->add_micro_batch_sizes(size);
  program->add_rows()->add_actions()->set_kind(v1::ACTION_KIND_FORWARD);
  program->add_rows();

  const auto edges = EdgesOf(plan);
  ASSERT_EQ(edges.size(), 1u);
  EXPECT_EQ(edges[0].value, "x0");
  EXPECT_EQ(edges[0].from_stage, 0);
  EXPECT_EQ(edges[0].to_stage, 1);
  EXPECT_TRUE(edges[0].requires_grad);

  const pipeline::Schedule schedule = ScheduleOf(plan, *program);
  EXPECT_EQ(schedule.stages, 2);
  EXPECT_EQ(schedule.micro_batches, 3);
  EXPECT_EQ(schedule.cycles, 5);
  EXPECT_THAT(schedule.stage_worker, testing::ElementsAre(0, 1));
  ASSERT_EQ(schedule.rows.size(), 2u);
  EXPECT_EQ(schedule.rows[0].at(0).kind, ActionKind::kForward);
}

}  // namespace
}  // namespace gpipe
