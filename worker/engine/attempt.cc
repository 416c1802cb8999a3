#include "worker/engine/attempt.h"

#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/artifacts/parts.h"
#include "common/attempt_id.h"
#include "common/field_error.h"
#include "common/plan/convert.h"
#include "common/plan/evaluation.h"
#include "common/plan/shape.h"
#include "common/spec/client_data.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/engine/action_executor.h"
#include "worker/engine/all_names.h"
#include "worker/engine/asked_rounds.h"
#include "worker/engine/attempt_words.h"
#include "worker/engine/own_failure.h"
#include "worker/engine/round_ledger.h"
#include "worker/engine/round_runner.h"
#include "worker/engine/round_trace.h"
#include "worker/stage/masters.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

v1::Assignment WithDefaults(v1::Assignment assignment) {
  *assignment.mutable_spec() = spec::WithDefaults(assignment.spec());
  return assignment;
}

int FirstStageOf(const v1::Assignment& assignment) {
  for (int stage = 0; stage < assignment.plan().stage_worker_size(); ++stage) {
    if (assignment.plan().stage_worker(stage) == assignment.worker_index()) return stage;
  }
  return 0;
}

std::vector<RoundLedger::HostedLayers> LayersOf(const HostedStages& stages, const v1::Plan& plan) {
  std::vector<RoundLedger::HostedLayers> layers;
  for (const HostedStage& hosted : stages.all()) {
    const v1::Stage& stage = plan.stages(hosted.index);
    layers.push_back({hosted.index, stage.first_layer(), stage.layer_count()});
  }
  return layers;
}

}  // namespace

Attempt::Attempt(const Environment& environment, v1::Assignment assignment, const Beacon& beacon)
    : environment_(environment),
      assignment_(WithDefaults(std::move(assignment))),
      beacon_(beacon),
      files_({environment_.cache, environment_.ranges, environment_.shared}, assignment_, beacon_.control),
      precision_(Precision::Of(assignment_.spec())),
      first_stage_(FirstStageOf(assignment_)) {}

Attempt::~Attempt() {
  beacon_.control.SetCommunicator(nullptr);
  beacon_.control.rounds().Leave(RoundFeed::Walker::kDataReader);  // It may wait for a round.
}

void Attempt::Say(std::string_view words) const { spdlog::info("{}: {}", AttemptName(assignment_.attempt()), words); }

absl::Status Attempt::Prepare() {
  const absl::Time begun = absl::Now();
  GPIPE_RETURN_IF_ERROR(Build());
  Say(absl::StrCat("built ", HostedStagesOf(assignment_), " on ", environment_.device.str(), " ", InSeconds(begun)));
  return absl::OkStatus();
}

absl::Status Attempt::Build() {
  GPIPE_RETURN_IF_ERROR(beacon_.Enter(v1::PHASE_PREPARING, failpoint::kPreparing, first_stage_));
  GPIPE_RETURN_IF_ERROR(beacon_.control.status());
  GPIPE_RETURN_IF_ERROR(files_.CheckShared());
  beacon_.control.rounds().Tell(assignment_.first());
  const v1::Plan& plan = assignment_.plan();
  GPIPE_ASSIGN_OR_RETURN(programs_, ProgramTable::Create(plan, assignment_.worker_index()));
  GPIPE_RETURN_IF_ERROR(OpenArchive());
  GPIPE_ASSIGN_OR_RETURN(stages_,
                         HostedStages::Create(assignment_.spec(), plan, assignment_.worker_index(), environment_.device,
                                              {archive_.get(), evaluation_archive_.get(), StartValues()}));
  GPIPE_RETURN_IF_ERROR(LoadState());
  GPIPE_RETURN_IF_ERROR(CreateOptimizer());
  GPIPE_RETURN_IF_ERROR(OpenData());
  return CreateOutput();
}

absl::Status Attempt::OpenExchange() {
  beacon_.control.rounds().Leave(RoundFeed::Walker::kDataReader);
  const std::string& folder = assignment_.spec().train().dataset().client().exchange();
  std::error_code error;
  if (!folder.empty() && !std::filesystem::is_directory(environment_.shared.Locate(folder), error)) {
    return FieldError("train.dataset.client.exchange", absl::StrCat(folder, " is no folder on this worker's machine"));
  }
  exchange_.emplace(ClientExchange::Options{.folder = folder,
                                            .job = assignment_.attempt().job(),
                                            .worker = assignment_.worker_index(),
                                            .scratch = environment_.folder,
                                            .shared = environment_.shared},
                    environment_.artifacts);
  return absl::OkStatus();
}

absl::Status Attempt::OpenData() {
  if (spec::HasClientData(assignment_.spec())) return OpenExchange();
  const v1::Plan& plan = assignment_.plan();
  DataSource::Options options{.pinned = environment_.device.is_cuda()};
  const v1::Loss& loss = assignment_.spec().train().loss();
  const v1::LayerInfo& last = plan.layers(plan.layers_size() - 1);
  if (loss.has_cross_entropy() && last.outputs_size() > 0) {
    options.classes = ClassesIn(last.outputs(0).shape(), loss.cross_entropy().class_dim());
  }
  const auto& layers = assignment_.spec().model().sequential();
  if (!layers.empty()) options.input_limit = layers[0].embedding().num_embeddings();
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<DataSource> source,
                         DataSource::Create(
                             assignment_.spec(), [this](const std::string& path) { return files_.LocalPath(path); },
                             stages_->role(), options));
  if (source->empty()) {
    beacon_.control.rounds().Leave(RoundFeed::Walker::kDataReader);
    return absl::OkStatus();
  }
  data_ = std::make_unique<ReadAhead>(std::move(source), [this] { return NextToRead(); }, environment_.device);
  return data_->WaitForFirst();
}

absl::StatusOr<std::optional<pipeline::Round>> Attempt::NextToRead() {
  GPIPE_ASSIGN_OR_RETURN(const std::optional<v1::Round> round,
                         beacon_.control.rounds().Next(RoundFeed::Walker::kDataReader));
  return round ? FromProto(*round) : std::nullopt;
}

absl::Status Attempt::OpenArchive() {
  if (!assignment_.spec().model().has_exported()) return absl::OkStatus();
  GPIPE_ASSIGN_OR_RETURN(const v1::ArtifactRef ref, files_.RefOf(assignment_.spec().model().exported().path()));
  const bool infers = assignment_.spec().has_infer();
  GPIPE_ASSIGN_OR_RETURN(
      archive_, Archive::Open(environment_.ranges, ref, infers ? ModelMode::kEvaluation : ModelMode::kTraining));
  if (!HasEvaluation(assignment_.plan())) return absl::OkStatus();
  GPIPE_ASSIGN_OR_RETURN(evaluation_archive_, Archive::Open(environment_.ranges, ref, ModelMode::kEvaluation));
  return absl::OkStatus();
}

// Masters take the values as they are in the files; what is computed with is rounded from that.
absl::Status Attempt::LoadState() {
  if (StartValues() == InitialValues::kArchive) return absl::OkStatus();
  const std::vector<NamedTensor> state = stages_->State();
  const bool resumes = !assignment_.resume_model().empty();
  // The masters of an exported model are in the optimizer's state.
  if (resumes && !precision_.files_hold_masters) return LoadInto(state);
  GPIPE_RETURN_IF_ERROR(LoadInto(WithMasters(state)));
  return RoundMasters(state);
}

absl::Status Attempt::LoadInto(const std::vector<NamedTensor>& state) {
  TensorLoader loader(environment_.device);
  if (!assignment_.resume_model().empty()) {
    GPIPE_ASSIGN_OR_RETURN(const CheckpointTensors saved, files_.OpenCheckpoint(assignment_.resume_model()));
    return saved.LoadModel(state, loader);
  }
  return LoadWeights(
      assignment_.spec().model(), assignment_.plan(), state,
      [this](const std::string& path) { return files_.OpenRanges(path); }, loader);
}

InitialValues Attempt::StartValues() const {
  const bool follow = !assignment_.resume_model().empty() || !assignment_.spec().model().weights().empty();
  return follow ? InitialValues::kFollow : InitialValues::kArchive;
}

absl::Status Attempt::CreateOptimizer() {
  if (!assignment_.spec().has_train()) return absl::OkStatus();
  if (precision_.scales_loss()) {
    GPIPE_RETURN_IF_ERROR(CatchTorch([this] {
      loss_scale_ = std::make_unique<LossScale>(environment_.device);
      return absl::OkStatus();
    }));
  }
  GPIPE_ASSIGN_OR_RETURN(
      optimizer_,
      Optimizer::Create(assignment_.spec().train().optimizer(), stages_->TrainableParameters(), environment_.device,
                        {precision_, loss_scale_.get(), /*saves_scale=*/assignment_.worker_index() == 0}));
  if (assignment_.resume_optimizer().empty()) return absl::OkStatus();
  GPIPE_ASSIGN_OR_RETURN(const CheckpointTensors saved, files_.OpenCheckpoint(assignment_.resume_optimizer()));
  return saved.LoadOptimizer(*optimizer_);
}

absl::Status Attempt::CreateOutput() {
  if (!assignment_.spec().has_infer() || !stages_->has_last()) return absl::OkStatus();
  const v1::Plan& plan = assignment_.plan();
  GPIPE_ASSIGN_OR_RETURN(
      output_, OutputFile::Create(environment_.folder / "outputs.safetensors",
                                  plan.layers(plan.layers_size() - 1).outputs(), assignment_.output_samples()));
  return absl::OkStatus();
}

absl::Status Attempt::Join() {
  GPIPE_RETURN_IF_ERROR(beacon_.Enter(v1::PHASE_JOINING, failpoint::kJoining, first_stage_));
  channels_ = ChannelsOf(assignment_.plan());
  CommOptions options;
  options.rank = assignment_.worker_index();
  options.size = assignment_.peers_size();
  options.device = environment_.device;
  options.data_address = environment_.data_address;
  options.channels = channels_.channels;
  const absl::Time begun = absl::Now();
  GPIPE_ASSIGN_OR_RETURN(communicator_, environment_.connect(options, beacon_.control.rendezvous()));
  beacon_.control.SetCommunicator(communicator_.get());
  if (options.size > 1) Say(absl::StrCat("connected with ", PeersOf(assignment_), " ", InSeconds(begun)));
  return absl::OkStatus();
}

absl::Status Attempt::Run() {
  beacon_.activity.Set(v1::PHASE_FORWARD, first_stage_);
  transfers_.emplace(*communicator_, assignment_.plan(), channels_, environment_.device, beacon_.activity);
  const v1::Train& train = assignment_.spec().train();
  std::optional<AskedRounds> asked;  // With client data.
  if (exchange_) {
    asked.emplace(AskedRounds::Parts{*stages_, *optimizer_, *exchange_, environment_.device,
                                     [this](const std::string& name) { return AliasesOf(name); }});
  }
  RoundLedger ledger({.attempt = assignment_.attempt(),
                      .device = environment_.device,
                      .stages = LayersOf(*stages_, assignment_.plan()),
                      .reports_loss = stages_->has_last(),
                      .loss_adds_up = train.loss().model_output().mean_of() == v1::LOSS_MEAN_SUM,
                      .output = output_ ? &*output_ : nullptr,
                      .give = [&](const RoundPlan& plan, const Values& made) { return asked->Give(plan, made); },
                      .clock = environment_.clock},
                     environment_.sink, *communicator_);
  CreateCheckpoints();
  const SharedGradients shared_gradients(assignment_.plan(), *stages_, channels_, assignment_.worker_index());
  ActionExecutor executor({assignment_.spec(), assignment_.plan(), *stages_, optimizer_.get(), loss_scale_.get(),
                           shared_gradients, *communicator_, *transfers_, checkpoints_ ? &*checkpoints_ : nullptr,
                           beacon_});
  RoundTrace trace(files_.TraceFile(environment_.trace_dir), environment_.device, beacon_.control.rounds().count());
  RoundRunner runner({*programs_, data_.get(), *communicator_, environment_.device, *transfers_, executor, ledger,
                      beacon_.control.rounds(), beacon_.control.gate(), beacon_.activity, trace});
  return runner.Run({.save_checkpoint = [this](int64_t step) { return BeginCheckpoint(step); },
                     .store_model = [this] { return StoreModel(); },
                     .asked = [&](const RoundPlan& plan) { return asked->Do(plan); },
                     .read_asked = [&](const RoundPlan& plan) { return asked->Read(plan); }});
}

void Attempt::CreateCheckpoints() {
  if (!assignment_.spec().has_train() || exchange_) return;
  checkpoints_.emplace(CheckpointWriter::Options{
      .device = environment_.device,
      .save = [this](const TrainingState& copy, const std::stop_token& stop) { return SaveCheckpoint(copy, stop); },
      // The engine hears of it where it waits for its next clock cycle, or for its next round.
      .on_failure =
          [this](const absl::Status& why) {
            beacon_.control.gate().Abort(why);
            beacon_.control.rounds().Abort(why);
          },
      .stop = beacon_.control.stop_token()});
}

absl::Status Attempt::BeginCheckpoint(int64_t step) {
  GPIPE_RETURN_IF_ERROR(beacon_.Enter(v1::PHASE_CHECKPOINT, failpoint::kCheckpoint, first_stage_, step));
  return checkpoints_->Begin({.step = step, .model = SavedState(), .optimizer = optimizer_->State()});
}

absl::Status Attempt::SaveCheckpoint(const TrainingState& copy, const std::stop_token& stop) {
  const absl::Time begun = absl::Now();
  const auto save = [&]() -> absl::Status {
    v1::WorkerMessage message;
    v1::CheckpointShard& shard = *message.mutable_checkpoint_shard();
    *shard.mutable_attempt() = assignment_.attempt();
    shard.set_step(copy.step);
    const ShardOptions options = OptionsFor(copy.step, stop);
    GPIPE_ASSIGN_OR_RETURN(*shard.mutable_model(), WriteShards(copy.model, options, environment_.artifacts));
    GPIPE_RETURN_IF_ERROR(beacon_.Pass(failpoint::kCheckpointWrite, copy.step));
    if (stop.stop_requested()) return absl::CancelledError("the attempt was aborted");
    GPIPE_ASSIGN_OR_RETURN(*shard.mutable_optimizer(), WriteShards(copy.optimizer, options, environment_.artifacts));
    Say(absl::StrCat("wrote its part of the checkpoint of step ", copy.step, ": ", SizeOf(shard.model()),
                     " and optimizer ", SizeOf(shard.optimizer()), " ", InSeconds(begun)));
    environment_.sink.Send(std::move(message));
    return absl::OkStatus();
  };
  const absl::Status saved = OwnFailure(save());
  if (saved.ok()) return saved;
  return absl::Status(saved.code(), absl::StrCat("writing the checkpoint of step ", copy.step, ": ", saved.message()));
}

absl::Status Attempt::StoreModel() {
  beacon_.activity.Set(v1::PHASE_FINISHING, first_stage_);
  GPIPE_RETURN_IF_ERROR(OwnFailure(WriteModel()));
  v1::WorkerMessage message;
  *message.mutable_trained()->mutable_attempt() = assignment_.attempt();
  *message.mutable_trained()->mutable_model() = model_;
  environment_.sink.Send(std::move(message));
  return absl::OkStatus();
}

absl::Status Attempt::WriteModel() {
  const absl::Time begun = absl::Now();
  GPIPE_ASSIGN_OR_RETURN(model_, WriteShards(FinalState(), OptionsFor(std::nullopt, beacon_.control.stop_token()),
                                             environment_.artifacts));
  Say(absl::StrCat("wrote its part of the model: ", SizeOf(model_), " ", InSeconds(begun)));
  return absl::OkStatus();
}

absl::StatusOr<v1::Finished> Attempt::Finish() {
  GPIPE_RETURN_IF_ERROR(beacon_.Enter(v1::PHASE_FINISHING, failpoint::kFinishing, first_stage_));
  if (checkpoints_) GPIPE_RETURN_IF_ERROR(checkpoints_->Wait());
  v1::Finished finished;
  *finished.mutable_attempt() = assignment_.attempt();
  if (output_) {
    GPIPE_RETURN_IF_ERROR(output_->Commit());
    GPIPE_ASSIGN_OR_RETURN(*finished.mutable_outputs(),
                           environment_.artifacts.Upload(environment_.folder / "outputs.safetensors"));
    Say(absl::StrCat("wrote the outputs: ", SizeOf(finished.outputs().size())));
  }
  if (assignment_.spec().has_train()) {
    if (model_.empty()) GPIPE_RETURN_IF_ERROR(WriteModel());
    *finished.mutable_model() = model_;
  }
  Say("finished");
  return finished;
}

ShardOptions Attempt::OptionsFor(std::optional<int64_t> step, std::stop_token stop) const {
  return {.max_shard_bytes = environment_.max_shard_bytes,
          .part_of = MakePartOf(assignment_.attempt(), step),
          .artifacts = environment_.artifacts.WritableFolder().value_or(""),
          .scratch = environment_.folder,
          .stop = std::move(stop)};
}

std::vector<NamedTensor> Attempt::SavedState() const {
  return precision_.files_hold_masters ? WithMasters(stages_->OwnState()) : stages_->OwnState();
}

// Under all its names, so that load_state_dict(strict=True) takes it.
std::vector<NamedTensor> Attempt::FinalState() const {
  return UnderAllNames(SavedState(), [this](const std::string& name) { return AliasesOf(name); });
}

std::vector<std::string> Attempt::AliasesOf(const std::string& name) const {
  return archive_ == nullptr ? std::vector<std::string>() : archive_->AliasesOf(name);
}

void Attempt::Abandon(const absl::Status& reason) {
  // Also lets go of transfers that will not complete any more, whose end would wait for them.
  if (communicator_ != nullptr) communicator_->Abort(reason);
}

}  // namespace gpipe::worker
