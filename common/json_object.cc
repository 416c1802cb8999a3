#include "common/json_object.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

using nlohmann::json;

// Looks at a text without keeping it. The library's own way to watch a parse, a callback, walks over all of an object's
// members at the end of each of them.
class Watcher : public json::json_sax_t {
 public:
  // `what` is what text that is no JSON is said not to be.
  Watcher(int max_depth, const char* what) : max_depth_(max_depth), what_(what) {}

  const std::string& problem() const { return problem_; }

  bool start_object(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    return keys_.back().insert(name).second || Refuse(absl::StrCat("has '", name, "' twice"));
  }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return Refuse(absl::StrCat("is not ", what_));
  }

 private:
  bool Enter() {
    keys_.emplace_back();
    return static_cast<int>(keys_.size()) <= max_depth_ || Refuse("is nested too deeply");
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }
  bool Refuse(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  const int max_depth_;
  const char* const what_;
  std::vector<std::set<std::string>> keys_;  // Of each value that is open.
  std::string problem_;
};

constexpr char kObject[] = "a JSON object";

absl::StatusOr<json> Parse(std::string_view text, int max_depth, const char* what) {
  Watcher watcher(max_depth, what);
  if (!json::sax_parse(text.begin(), text.end(), &watcher)) return absl::InvalidArgumentError(watcher.problem());
  return json::parse(text.begin(), text.end(), /*callback=*/nullptr, /*allow_exceptions=*/false);
}

}  // namespace

absl::StatusOr<json> ParseJson(std::string_view text, int max_depth) { return Parse(text, max_depth, "JSON"); }

absl::StatusOr<json> ParseJsonObject(std::string_view text, int max_depth) {
  GPIPE_ASSIGN_OR_RETURN(json parsed, Parse(text, max_depth, kObject));
  if (!parsed.is_object()) return absl::InvalidArgumentError(absl::StrCat("is not ", kObject));
  return parsed;
}

}  // namespace gpipe
