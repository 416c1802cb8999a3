#include "tests/unit/worker/process_rendezvous.h"

#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::worker {
namespace {

// A question is `put KEY VALUE` or `get KEY MILLISECONDS`, an answer `CODE TEXT`.

std::optional<std::string> ReceiveMessage(int socket) {
  std::array<char, 4096> buffer;
  const ssize_t length = recv(socket, buffer.data(), buffer.size(), 0);
  if (length <= 0) return std::nullopt;
  return std::string(buffer.data(), static_cast<size_t>(length));
}

bool SendMessage(int socket, const std::string& message) {
  return send(socket, message.data(), message.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(message.size());
}

absl::StatusOr<std::string> Answer(const std::string& question, Rendezvous& rendezvous) {
  const std::vector<std::string> words = absl::StrSplit(question, absl::MaxSplits(' ', 2));
  if (words[0] == "put") {
    GPIPE_RETURN_IF_ERROR(rendezvous.Put(words[1], words[2]));
    return std::string();
  }
  return rendezvous.Get(words[1], absl::Milliseconds(std::atoll(words[2].c_str())));
}

}  // namespace

absl::Status ProcessRendezvous::Put(std::string_view key, std::string_view value) {
  return Ask(absl::StrCat("put ", prefix_, AbslView(key), " ", AbslView(value))).status();
}

absl::StatusOr<std::string> ProcessRendezvous::Get(std::string_view key, absl::Duration timeout) {
  return Ask(absl::StrCat("get ", prefix_, AbslView(key), " ", absl::ToInt64Milliseconds(timeout)));
}

void ProcessRendezvous::Abort(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (aborted_.ok()) aborted_ = reason;
}

absl::StatusOr<std::string> ProcessRendezvous::Ask(const std::string& question) {
  absl::MutexLock lock(&mutex_);
  GPIPE_RETURN_IF_ERROR(aborted_);
  if (!SendMessage(socket_, question)) return absl::UnavailableError("the test's parent is gone");
  const std::optional<std::string> answer = ReceiveMessage(socket_);
  if (!answer) return absl::UnavailableError("the test's parent is gone");
  const size_t space = answer->find(' ');
  const int code = std::atoi(answer->substr(0, space).c_str());
  std::string text = answer->substr(space + 1);
  if (code == 0) return text;
  return absl::Status(static_cast<absl::StatusCode>(code), text);
}

void ServeRendezvous(int socket, Rendezvous& rendezvous) {
  while (const std::optional<std::string> question = ReceiveMessage(socket)) {
    const absl::StatusOr<std::string> answer = Answer(*question, rendezvous);
    const std::string text = answer.ok() ? *answer : std::string(answer.status().message());
    SendMessage(socket, absl::StrCat(static_cast<int>(answer.status().code()), " ", text));
  }
}

}  // namespace gpipe::worker
