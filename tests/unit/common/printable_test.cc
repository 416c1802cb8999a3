#include "common/printable.h"

#include <gtest/gtest.h>

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe {
namespace {

TEST(PrintableTest, TextStaysAsItIs) {
  EXPECT_EQ(Printable("plain, \xc3\xa4\xe2\x82\xac\n\tnext line"), "plain, \xc3\xa4\xe2\x82\xac\n\tnext line");
  EXPECT_EQ(Printable(""), "");
}

TEST(PrintableTest, ControlCharactersAreWrittenOut) {
  EXPECT_EQ(Printable("\x1b[31mred\x07\r\x7f"), "\\x1b[31mred\\x07\\x0d\\x7f");
  EXPECT_EQ(Printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");  // The one-character form of the same escape.
}

TEST(PrintableTest, WhatIsNotUtf8IsWrittenOut) {
  EXPECT_EQ(Printable("a\xff"
                      "b\xc3"),
            "a\\xffb\\xc3");
}

TEST(PrintableTest, TextsOfAMessageAreMadePrintableAndNothingElse) {
  v1::Hello hello;
  hello.set_name(
      "w\x1b"
      "0");
  hello.set_threads(3);
  MakePrintable(hello);
  EXPECT_EQ(hello.name(), "w\\x1b0");
  EXPECT_EQ(hello.threads(), 3);
  v1::SharedPaths paths;
  paths.add_paths("a\x07");
  paths.add_paths("b");
  MakePrintable(paths);
  EXPECT_EQ(paths.paths(0), "a\\x07");
  EXPECT_EQ(paths.paths(1), "b");
}

}  // namespace
}  // namespace gpipe
