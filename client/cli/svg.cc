#include "client/cli/svg.h"

#include "absl/strings/str_cat.h"
#include "common/string_view.h"

namespace gpipe::client {
namespace {

// What XML cannot hold at all becomes a question mark.
std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return escaped;
}

}  // namespace

void Svg::Box(int x, int y, int width, int height, std::string_view look) {
  absl::StrAppend(&shapes_, "<rect x=\"", x, "\" y=\"", y, "\" width=\"", width, "\" height=\"", height,
                  "\" rx=\"4\" class=\"", AbslView(look), "\"/>\n");
}

void Svg::Bar(int x, int y, int width, int height, std::string_view look, std::string_view title) {
  absl::StrAppend(&shapes_, "<rect x=\"", x, "\" y=\"", y, "\" width=\"", width, "\" height=\"", height, "\" class=\"",
                  AbslView(look), "\"><title>", Escaped(title), "</title></rect>\n");
}

void Svg::Dot(int x, int y, std::string_view look) {
  absl::StrAppend(&shapes_, "<circle cx=\"", x, "\" cy=\"", y, "\" r=\"4\" class=\"", AbslView(look), "\"/>\n");
}

void Svg::Text(int x, int y, std::string_view look, std::string_view text) {
  absl::StrAppend(&shapes_, "<text x=\"", x, "\" y=\"", y, "\" class=\"", AbslView(look), "\">", Escaped(text),
                  "</text>\n");
}

void Svg::Path(std::string_view path, std::string_view look, std::string_view title) {
  absl::StrAppend(&shapes_, "<path d=\"", AbslView(path), "\" class=\"", AbslView(look), "\"><title>", Escaped(title),
                  "</title></path>\n");
}

void Svg::Arrow(std::string_view name, std::string_view color) {
  absl::StrAppend(&definitions_, "<marker id=\"", AbslView(name),
                  "\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" "
                  "orient=\"auto\"><path d=\"M0,0 L8,4 L0,8 z\" fill=\"",
                  AbslView(color), "\"/></marker>\n");
}

void Svg::Hatch(std::string_view name, std::string_view color) {
  absl::StrAppend(&definitions_, "<pattern id=\"", AbslView(name),
                  "\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
                  "<rect width=\"2\" height=\"6\" fill=\"",
                  AbslView(color), "\"/></pattern>\n");
}

std::string Svg::Render(int width, int height, std::string_view style) const {
  return absl::StrCat("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", width, "\" height=\"", height,
                      "\" viewBox=\"0 0 ", width, " ", height, "\">\n<style>\n", AbslView(style), "</style>\n<defs>\n",
                      definitions_, "</defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n", shapes_,
                      "</svg>\n");
}

}  // namespace gpipe::client
