#include "client/cli/app.h"

#include <algorithm>
#include <functional>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/attend.h"
#include "client/cli/cluster_commands.h"
#include "client/cli/completion.h"
#include "client/cli/data_commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/global_options.h"
#include "client/cli/job_commands.h"
#include "client/cli/run_command.h"
#include "client/cli/spec_commands.h"
#include "common/address.h"
#include "common/version.h"

namespace gpipe::client {
namespace {

constexpr char kDescription[] =
    "Trains and runs one neural network on many workers by pipeline parallelism.\n"
    "Data goes to stdout, words to stderr.";

constexpr char kExamples[] =
    "\nENVIRONMENT\n"
    "  GPIPE_ORCHESTRATOR  address of the orchestrator, HOST:PORT\n"
    "  GPIPE_BIN_DIR       where gpipe-orchestrator and gpipe-worker are; beside this program by default\n"
    "  GPIPE_PYTHON        the Python of gpipe data convert; python3 by default\n"
    "  NO_COLOR            no colours in the live view\n"
    "  XDG_CACHE_HOME      where hashes of files are remembered, in gpipe/hashes; ~/.cache by default\n"
    "\nEXAMPLES\n"
    "  gpipe run job.yaml                         a private cluster on this machine, gone afterwards\n"
    "  gpipe plan job.yaml --svg plan.svg         stages, what crosses between them, the clock cycles; a drawing\n"
    "  gpipe job submit job.yaml --wait           on the cluster of GPIPE_ORCHESTRATOR\n"
    "  gpipe job watch --cycles JOB               each clock cycle as it completes\n"
    "  source <(gpipe completion bash)            completion for this shell\n";

// The options of all commands, and the command that was chosen.
struct CommandLine {
  GlobalOptions global;
  RunOptions run;
  SpecOptions spec;
  JobOptions job;
  std::string shell;
  std::function<absl::StatusOr<ExitCode>()> command;
};

// CLI11 would add the rule to the help of every option.
CLI::Validator Quietly(CLI::Validator rule) { return rule.description(""); }
// CLI11's own one tells a limit of 309 digits.
CLI::Validator Positive() {
  const auto problem = [](const std::string& text) {
    int64_t number = 0;
    return absl::SimpleAtoi(text, &number) && number > 0 ? "" : absl::StrCat("'", text, "' is no whole number from 1");
  };
  return CLI::Validator(problem, "");
}
CLI::Validator PositiveSeconds() {
  const auto problem = [](const std::string& text) {
    double number = 0;
    return absl::SimpleAtod(text, &number) && number > 0 ? "" : absl::StrCat("'", text, "' is no number above 0");
  };
  return CLI::Validator(problem, "");
}
// What CLI::ExistingFile checks, but for what stands for standard input.
CLI::Validator SpecFile() {
  return CLI::Validator([](std::string& path) { return path == "-" ? "" : CLI::ExistingFile(path); }, "");
}
CLI::Validator OneOf(const std::vector<std::string>& words) { return Quietly(CLI::IsMember(words)); }

using JobCommand = absl::StatusOr<ExitCode> (*)(const GlobalOptions&, const JobOptions&);

void AddGlobalOptions(CLI::App& app, GlobalOptions& global) {
  app.add_option("--orchestrator", global.orchestrator,
                 absl::StrCat("Address of the orchestrator. Default: GPIPE_ORCHESTRATOR, then ", kDefaultAddress))
      ->envname("GPIPE_ORCHESTRATOR")
      ->check(AddressProblem)
      ->type_name("HOST:PORT");
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

  AddJobVerb(job, line, "get", "Show everything about a job", JobGet);
  CLI::App& watch = AddJobVerb(job, line, "watch", "Follow a job to its end and exit by that", JobWatch);
  watch.add_flag("--cycles", options.cycles, "A line for each clock cycle; a round is one mini-batch");
  CLI::App& wait = AddJobVerb(job, line, "wait", "Wait for a job's end, whichever, and exit by that", JobWait);
  wait.add_option("--timeout", options.timeout_seconds, "Exit with 6 after so long. Default: never")
      ->check(PositiveSeconds())
      ->type_name("SECONDS");
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

void AddClusterCommands(CLI::App& app, CommandLine& line) {
  CLI::App& worker = *app.add_subcommand("worker", "Workers of a standing cluster")->require_subcommand(1);
  worker.add_subcommand("list", "List the workers and what they do")->callback([&line] {
    line.command = [&line] { return WorkerList(line.global); };
  });
  app.add_subcommand("health", "Ask the orchestrator whether it serves")->callback([&line] {
    line.command = [&line] { return Health(line.global); };
  });
  app.add_subcommand("version", "Print the version, and the orchestrator's if one is given")->callback([&line] {
    line.command = [&line] { return Version(line.global); };
  });
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
  AddCompletion(app, line);
  app.footer(absl::StrCat(kExitCodeTable, kExamples));
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
  CLI::App app(kDescription, "gpipe");
  CommandLine line;
  AddAll(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return ExitUsage(app, error);
  }
  const absl::StatusOr<ExitCode> code = line.command();
  if (code.ok()) return OrFailed(*code);
  PrintError(code.status(), line.global);
  return static_cast<int>(ExitCodeOf(code.status()));
}

}  // namespace gpipe::client
