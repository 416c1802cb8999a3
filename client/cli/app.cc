#include "client/cli/app.h"

#include <algorithm>
#include <functional>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/admin_commands.h"
#include "client/cli/attend.h"
#include "client/cli/cluster_commands.h"
#include "client/cli/completion.h"
#include "client/cli/data_commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/flag_rules.h"
#include "client/cli/global_options.h"
#include "client/cli/http_health.h"
#include "client/cli/job_commands.h"
#include "client/cli/run_command.h"
#include "client/cli/spec_commands.h"
#include "client/cli/timeline_command.h"
#include "common/address.h"
#include "common/net/grpc_log.h"
#include "common/net/tls_flags.h"
#include "common/status_macros.h"
#include "common/version.h"

namespace gpipe::client {
namespace {

constexpr char kDescription[] =
    "Trains and runs one neural network on many workers by pipeline parallelism.\n"
    "Data goes to stdout, words to stderr.";

constexpr char kExamples[] =
    "\nENVIRONMENT\n"
    "  GPIPE_ORCHESTRATOR  address of the orchestrator, HOST:PORT\n"
    "  GPIPE_TLS_CA, GPIPE_TLS_CERT, GPIPE_TLS_KEY, GPIPE_TOKEN_FILE  as --tls-ca and so on\n"
    "  GPIPE_BIN_DIR       where gpipe-orchestrator and gpipe-worker are; beside this program by default\n"
    "  GPIPE_PYTHON        the Python of gpipe data convert; python3 by default\n"
    "  NO_COLOR            no colours in the live view\n"
    "  XDG_CACHE_HOME      where hashes of files are remembered, in gpipe/hashes; ~/.cache by default\n"
    "\nEXAMPLES\n"
    "  gpipe run job.yaml                         a private cluster on this machine, gone afterwards\n"
    "  gpipe plan job.yaml --svg plan.svg         stages, what crosses between them, the clock cycles; a drawing\n"
    "  gpipe job submit job.yaml --wait           on the cluster of GPIPE_ORCHESTRATOR\n"
    "  gpipe job watch --cycles JOB               each clock cycle as it completes\n"
    "  gpipe job watch --stages JOB               what each stage does, and whom it waits for\n"
    "  gpipe job timeline JOB -o step.svg         the last step, drawn: who computed what, and the bubble\n"
    "  source <(gpipe completion bash)            completion for this shell\n";

// The options of all commands, and the command that was chosen.
struct CommandLine {
  GlobalOptions global;
  RunOptions run;
  SpecOptions spec;
  JobOptions job;
  WorkerOptions worker;
  HealthOptions health;
  AdminOptions admin;
  std::string shell;
  std::function<absl::StatusOr<ExitCode>()> command;
};

using JobCommand = absl::StatusOr<ExitCode> (*)(const GlobalOptions&, const JobOptions&);

void AddGlobalOptions(CLI::App& app, GlobalOptions& global) {
  app.add_option("--orchestrator", global.orchestrator,
                 absl::StrCat("Address of the orchestrator. Default: GPIPE_ORCHESTRATOR, then ", kDefaultAddress))
      ->envname("GPIPE_ORCHESTRATOR")
      ->check(AddressProblem)
      ->type_name("HOST:PORT");
  AddTlsFlags(app, global.tls);
  app.add_option("--token-file", global.token_file, "File with a token that says who asks, in place of a certificate")
      ->envname("GPIPE_TOKEN_FILE")
      ->type_name("FILE");
  app.add_option("-o,--format", global.format, "table, or json: the message of the API, a line each for streams")
      ->check(OneOf({"table", "json"}))
      ->type_name("table|json");
  app.add_option("--timeout", global.timeout_seconds, "Deadline of each call to the orchestrator. Default: its own")
      ->check(PositiveSeconds())
      ->type_name("SECONDS");
  app.add_flag("-q,--quiet", global.quiet, "Say only what went wrong");
  app.set_version_flag("--version", absl::StrCat("gpipe ", std::string(kVersion)), "Print the version and exit");
}

void AddSpec(CLI::App& command, std::string& spec) {
  command.add_option("SPEC", spec, "The job spec, a YAML file; - is standard input")
      ->required()
      ->check(SpecFile())
      ->type_name("");
}

void AddRun(CLI::App& app, CommandLine& line) {
  CLI::App& run = *app.add_subcommand("run", "Run a job on a private cluster on this machine");
  RunOptions& options = line.run;
  AddSpec(run, options.spec);
  run.add_option("--output", options.output, "Folder for the results. Default: the job's name")->type_name("DIR");
  run.add_option("--workers", options.workers,
                 "Workers to start. Default: the spec's workers, else one per stage of balance or split, else 2")
      ->check(Positive())
      ->type_name("N");
  run.add_option("--threads", options.threads, "Threads of each worker. Default: this machine's cores / workers")
      ->check(Positive())
      ->type_name("T");
  run.add_option("--device", options.device, "cpu, or cuda: one GPU each, shared when there are fewer")
      ->check(OneOf({"cpu", "cuda"}))
      ->type_name("cpu|cuda");
  run.add_option("--gpus", options.gpus, "GPUs to use. Default: all that nvidia-smi lists")
      ->check(Positive())
      ->type_name("N");
  run.add_option("--resume", options.resume, "Continue from the newest checkpoint in this folder of results")
      ->type_name("FOLDER");
  run.add_flag("--overwrite", options.overwrite, "Replace the results that are in DIR from an earlier run");
  run.add_flag("--keep-logs", options.keep_logs, "Copy the logs of all processes into DIR/logs");
  run.add_flag("--timeline", options.timeline, "Draw the last step: DIR/timeline.svg, and for Perfetto timeline.json");
  run.add_flag("--trace", options.trace, "Trace two mini-batches of every worker into DIR/trace, for Perfetto");
  run.callback([&line] { line.command = [&line] { return Run(line.global, line.run); }; });
}

void AddSpecCommands(CLI::App& app, CommandLine& line) {
  CLI::App& plan = *app.add_subcommand("plan", "Show stages, bytes per boundary, the clock cycles and the bubble");
  AddSpec(plan, line.spec.spec);
  plan.add_option("--workers", line.spec.workers, "Plan for so many workers. Default: as the spec says")
      ->check(Positive())
      ->type_name("N");
  plan.add_option("--svg", line.spec.svg, "Draw the model, its stages and what crosses between them, too")
      ->type_name("FILE");
  plan.callback([&line] { line.command = [&line] { return PlanSpec(line.global, line.spec); }; });

  CLI::App& validate = *app.add_subcommand("validate", "Check a job spec and everything it names");
  AddSpec(validate, line.spec.spec);
  validate.callback([&line] { line.command = [&line] { return ValidateSpec(line.global, line.spec); }; });
}

CLI::App& AddJobCommand(CLI::App& job, CommandLine& line, const char* name, const char* words, JobCommand command) {
  CLI::App& added = *job.add_subcommand(name, words);
  added.callback([&line, command] { line.command = [&line, command] { return command(line.global, line.job); }; });
  return added;
}

// A verb on one job.
CLI::App& AddJobVerb(CLI::App& job, CommandLine& line, const char* name, const char* words, JobCommand command) {
  CLI::App& added = AddJobCommand(job, line, name, words, command);
  added.add_option("JOB", line.job.id, "The job's id")->required()->type_name("");
  return added;
}

void AddJobCommands(CLI::App& app, CommandLine& line) {
  CLI::App& job = *app.add_subcommand("job", "Jobs of a standing cluster")->require_subcommand(1);
  JobOptions& options = line.job;

  CLI::App& submit = AddJobCommand(job, line, "submit", "Submit a job; prints its id", JobSubmit);
  AddSpec(submit, options.spec);
  submit.add_flag("--wait", options.wait, "Follow it to its end, whichever, and exit by that");
  submit.add_option("--resume", options.resume, "Continue from the newest checkpoint of a job or a folder of results")
      ->type_name("JOB|FOLDER");
  submit.add_option("--request-id", options.request_id, "The same id again answers with the same job. Default: random")
      ->type_name("ID");

  CLI::App& list = AddJobCommand(job, line, "list", "List jobs, newest first", JobList);
  list.add_option("--state", options.states, "Only jobs in this state: queued, running, failed, ...")
      ->type_name("STATE");
  list.add_option("--limit", options.limit, "At most so many; 0 lists all")
      ->check(Quietly(CLI::NonNegativeNumber))
      ->capture_default_str()
      ->type_name("N");

  AddJobVerb(job, line, "get", "Show how a job is", JobGet);
  AddJobVerb(job, line, "describe", "Show everything about a job on one page", JobDescribe);
  CLI::App& watch = AddJobVerb(job, line, "watch", "Follow a job to its end and exit by that", JobWatch);
  watch.add_flag("--cycles", options.cycles, "A line for each clock cycle; a round is one mini-batch");
  watch.add_flag("--stages", options.stages, "A table of what each stage did in the last step, instead of bars");
  CLI::App& timeline = AddJobVerb(job, line, "timeline", "Show what each stage did, and when, in a step", JobTimeline);
  timeline.add_option("--step", options.step, "One of the last steps. Default: the last one")
      ->check(Positive())
      ->type_name("S");
  timeline
      .add_option(
          "-o,--output", options.timeline,
          "A .svg file is drawn, a .json file is a trace for Perfetto; - is the trace on stdout, json the message "
          "of the API. Default: words")
      ->type_name("FILE");
  CLI::App& wait = AddJobVerb(job, line, "wait", "Wait for a job's end, whichever, and exit by that", JobWait);
  CLI::App& save =
      AddJobVerb(job, line, "checkpoint", "Have a job write a checkpoint now, and wait for it", JobCheckpoint);
  for (CLI::App* waiting : {&wait, &save}) {
    waiting->add_option("--timeout", options.timeout_seconds, "Exit with 6 after so long. Default: never")
        ->check(PositiveSeconds())
        ->type_name("SECONDS");
  }
  AddJobVerb(job, line, "pause", "Stop a job at a clock cycle", JobPause);
  AddJobVerb(job, line, "resume", "Go on with a paused job", JobResume);
  AddJobVerb(job, line, "cancel", "End a job", JobCancel);
  CLI::App& remove = AddJobCommand(job, line, "delete", "Forget jobs that have ended, and their files", JobDelete);
  remove.add_option("JOB", options.ids, "The jobs' ids")->required()->type_name("");
  CLI::App& pull = AddJobVerb(job, line, "pull", "Fetch what a job made", JobPull);
  pull.add_option("--output", options.output, "Folder for the results. Default: the job's name")->type_name("DIR");
  CLI::App& logs = AddJobVerb(job, line, "logs", "Show what happened to a job, and what its workers say", JobLogs);
  logs.add_flag("-f,--follow", options.follow, "Go on until the job's end");
}

void AddHealth(CLI::App& app, CommandLine& line) {
  CLI::App& health = *app.add_subcommand("health", "Ask the orchestrator whether it serves, or a program how it is");
  CLI::Option& http = *health.add_option("--http", line.health.http, "Ask who has that --http-listen whether he lives")
                           ->check(AddressProblem)
                           ->type_name("HOST:PORT");
  health.add_flag("--ready", line.health.ready, "Ask whether he is ready for work, too")->needs(&http);
  health.callback([&line] {
    line.command = [&line] {
      return line.health.http.empty() ? Health(line.global) : HttpHealth(line.global, line.health);
    };
  });
}

void AddClusterCommands(CLI::App& app, CommandLine& line) {
  CLI::App& worker = *app.add_subcommand("worker", "Workers of a standing cluster")->require_subcommand(1);
  worker.add_subcommand("list", "List the workers and what they do")->callback([&line] {
    line.command = [&line] { return WorkerList(line.global); };
  });
  CLI::App& describe = *worker.add_subcommand("describe", "Show a worker, its GPU's health and what it computes with");
  describe.add_option("NAME", line.worker.name, "The worker's name")->required()->type_name("");
  describe.callback([&line] { line.command = [&line] { return WorkerDescribe(line.global, line.worker); }; });
  CLI::App& drain = *worker.add_subcommand("drain", "Give a worker no new work; what it runs goes on");
  drain.add_option("NAME", line.worker.name, "The worker's name")->required()->type_name("");
  drain.add_option("--reason", line.worker.reason, "For those who wonder later")->type_name("TEXT");
  drain.callback([&line] { line.command = [&line] { return WorkerDrain(line.global, line.worker); }; });
  CLI::App& undrain = *worker.add_subcommand("undrain", "Give a drained worker work again");
  undrain.add_option("NAME", line.worker.name, "The worker's name")->required()->type_name("");
  undrain.callback([&line] { line.command = [&line] { return WorkerUndrain(line.global, line.worker); }; });
  AddHealth(app, line);
  app.add_subcommand("version", "Print the version, and the orchestrator's if one is given")->callback([&line] {
    line.command = [&line] { return Version(line.global); };
  });
}

void AddAdminCommands(CLI::App& app, CommandLine& line) {
  CLI::App& admin = *app.add_subcommand("admin", "The orchestrator's state")->require_subcommand(1);
  AdminOptions& options = line.admin;
  CLI::App& backup = *admin.add_subcommand("backup", "Back up a running orchestrator: its jobs and their files");
  backup.add_option("TARGET", options.backup, "A new folder, or an archive FILE.tar")->required()->type_name("");
  backup.add_flag("--without-files", options.without_files, "The database only");
  backup.callback([&line] { line.command = [&line] { return AdminBackup(line.global, line.admin); }; });
  CLI::App& restore = *admin.add_subcommand("restore", "Make a state folder of a backup, for gpipe-orchestrator");
  restore.add_option("FOLDER", options.backup, "The backup; unpack an archive first")
      ->required()
      ->check(Quietly(CLI::ExistingDirectory))
      ->type_name("");
  restore.add_option("--state-dir", options.state_dir, "The state folder to make: not there yet, or empty")
      ->required()
      ->type_name("DIR");
  restore.callback([&line] { line.command = [&line] { return AdminRestore(line.global, line.admin); }; });
}

void AddDataCommands(CLI::App& app, CommandLine& line) {
  CLI::App& data = *app.add_subcommand("data", "Files of data for jobs")->require_subcommand(1);
  CLI::App& convert = *data.add_subcommand("convert", "Make a safetensors file of CSV, Parquet and NumPy files");
  // Everything behind it is for the program that does it, its help too.
  convert.set_help_flag("");
  convert.fallthrough(false)->prefix_command();
  convert.callback(
      [&line, &convert] { line.command = [arguments = convert.remaining()] { return DataConvert(arguments); }; });
}

void AddWords(const CLI::App& app, const std::string& path, std::vector<CommandWords>& commands) {
  CommandWords command;
  command.path = path;
  const auto below = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* child : below) command.words.push_back(child->get_name());
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) command.words.push_back("--" + name);
    command.takes_file |= option->get_name() == "SPEC";
    command.takes_job |= option->get_name() == "JOB";
  }
  if (path == "completion") command.words.insert(command.words.end(), {"bash", "zsh"});
  commands.push_back(std::move(command));
  for (const CLI::App* child : below) {
    AddWords(*child, path.empty() ? child->get_name() : absl::StrCat(path, " ", child->get_name()), commands);
  }
}

ExitCode PrintCompletion(const CLI::App& app, const std::string& shell) {
  std::vector<CommandWords> commands;
  AddWords(app, "", commands);
  Print(shell == "zsh" ? ZshCompletion(commands) : BashCompletion(commands));
  return ExitCode::kSucceeded;
}

void AddCompletion(CLI::App& app, CommandLine& line) {
  CLI::App& completion = *app.add_subcommand("completion", "Print a script that completes commands in a shell");
  completion.add_option("SHELL", line.shell, "bash or zsh")->required()->check(OneOf({"bash", "zsh"}))->type_name("");
  completion.callback([&app, &line] {
    line.command = [&app, &line]() -> absl::StatusOr<ExitCode> { return PrintCompletion(app, line.shell); };
  });
}

void AddAll(CLI::App& app, CommandLine& line) {
  app.fallthrough();
  app.require_subcommand(1);
  app.footer(absl::StrCat("Options of every command: gpipe --help\n\n", kExitCodeTable));  // Inherited by commands.
  AddGlobalOptions(app, line.global);
  AddRun(app, line);
  AddSpecCommands(app, line);
  AddJobCommands(app, line);
  AddDataCommands(app, line);
  AddClusterCommands(app, line);
  AddAdminCommands(app, line);
  AddCompletion(app, line);
  app.footer(absl::StrCat(kExitCodeTable, kExamples));
}

// Whether the command talks to the orchestrator of a standing cluster.
bool Connects(const CLI::App& app, const GlobalOptions& global) {
  const auto is = [&app](const char* name) { return app.got_subcommand(name); };
  if (is("run") || is("data") || is("completion")) return false;
  return !global.orchestrator.empty() || !(is("plan") || is("validate") || is("version"));
}

absl::StatusOr<ExitCode> RunCommand(const CLI::App& app, CommandLine& line) {
  GlobalOptions& global = line.global;
  if (Connects(app, global)) {
    GPIPE_ASSIGN_OR_RETURN(global.credentials, MakeCredentials(global.tls, TlsUse::kClient, global.token_file));
  }
  return line.command();
}

void PrintError(const absl::Status& status, const GlobalOptions& global) {
  absl::FPrintF(stderr, "%s\n", std::string(status.message()));
  if (!absl::IsUnavailable(status)) return;
  absl::FPrintF(stderr,
                "is gpipe-orchestrator running there? The address is set with --orchestrator or "
                "GPIPE_ORCHESTRATOR%s\n",
                global.orchestrator.empty() ? "; neither is given" : "");
}

// `code`, unless what was printed has not arrived: a full disk behind a redirection.
int OrFailed(ExitCode code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return static_cast<int>(code);
  absl::FPrintF(stderr, "cannot write to standard output\n");
  return static_cast<int>(code == ExitCode::kSucceeded ? ExitCode::kFailed : code);
}

// A mistyped option is the cause of what else is wrong: its value passes for an argument. So is a mistyped command of
// what is missing, and of help that is not about it.
std::string UnknownArgument(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> unknown = app.remaining(true);
  const auto is_option = [](const std::string& argument) { return argument.size() > 1 && argument[0] == '-'; };
  const auto option = std::ranges::find_if(unknown, is_option);
  if (option != unknown.end()) return *option;
  const bool misses = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
  const bool helps = dynamic_cast<const CLI::CallForHelp*>(&error) != nullptr;
  return (misses || helps) && !unknown.empty() ? unknown[0] : "";
}

int ExitUsage(const CLI::App& app, const CLI::ParseError& error) {
  if (const std::string unknown = UnknownArgument(app, error); !unknown.empty()) {
    absl::FPrintF(stderr, "unknown command or argument: %s\nRun with --help for more information.\n", unknown);
    return static_cast<int>(ExitCode::kUsage);
  }
  return app.exit(error) == 0 ? OrFailed(ExitCode::kSucceeded) : static_cast<int>(ExitCode::kUsage);
}

}  // namespace

int Main(int argc, char** argv) {
  SilenceGrpc();
  CLI::App app(kDescription, "gpipe");
  CommandLine line;
  AddAll(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return ExitUsage(app, error);
  }
  const absl::StatusOr<ExitCode> code = RunCommand(app, line);
  if (code.ok()) return OrFailed(*code);
  PrintError(code.status(), line.global);
  return static_cast<int>(ExitCodeOf(code.status()));
}

}  // namespace gpipe::client
