// The page's files as they are served, and what they may not have.

#include <regex>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "orchestrator/web/static_files.h"

namespace gpipe::orchestrator {
namespace {

using testing::HasSubstr;

const StaticFile& FileOf(std::string_view name) {
  for (const StaticFile& file : AllStaticFiles()) {
    if (file.name == name) return file;
  }
  ADD_FAILURE() << "there is no " << name;
  return AllStaticFiles().front();
}

TEST(StaticFilesTest, ThePageIsAtTheRoot) {
  EXPECT_EQ(PathOf(FileOf("index.html")), "/");
  EXPECT_EQ(PathOf(FileOf("style.css")), "/style.css");
}

TEST(StaticFilesTest, EachHasItsTypeAndThePolicy) {
  const std::map<std::string, std::string> types = {{"index.html", "text/html; charset=utf-8"},
                                                    {"main.js", "text/javascript; charset=utf-8"},
                                                    {"style.css", "text/css; charset=utf-8"},
                                                    {"icon.svg", "image/svg+xml"}};
  for (const auto& [name, type] : types) {
    const HttpResponse response = ServeStatic(FileOf(name), {});
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.content_type, type);
    EXPECT_EQ(response.body, FileOf(name).content);
    EXPECT_THAT(response.headers.at("Content-Security-Policy"),
                testing::AllOf(HasSubstr("default-src 'self'"), HasSubstr("frame-ancestors 'none'")));
  }
}

TEST(StaticFilesTest, WhoHasAFileIsNotSentItAgain) {
  const std::string tag = ServeStatic(FileOf("main.js"), {}).headers.at("ETag");
  const HttpResponse again = ServeStatic(FileOf("main.js"), {.headers = {{"if-none-match", "\"x\", " + tag}}});
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(again.body, "");
  EXPECT_EQ(again.headers.at("ETag"), tag);
  EXPECT_EQ(ServeStatic(FileOf("style.css"), {.headers = {{"if-none-match", tag}}}).status, 200);
}

// What the policy refuses in the browser, and what would read text from outside as markup.
TEST(StaticFilesTest, NothingIsInlineAndNothingIsReadAsMarkup) {
  const std::string page(FileOf("index.html").content);
  EXPECT_FALSE(std::regex_search(page, std::regex("<script(?![^>]*src=)|<style|\\sstyle=|\\son[a-z]+=|javascript:")));
  for (const StaticFile& file : AllStaticFiles()) {
    for (const char* word : {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://",
                             "new Function", "DOMParser", "createContextualFragment"}) {
      EXPECT_EQ(file.content.find(word), std::string_view::npos) << file.name << " has " << word;
    }
  }
}

}  // namespace
}  // namespace gpipe::orchestrator
