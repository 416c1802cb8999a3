#ifndef GPIPE_CLIENT_CLI_SVG_H_
#define GPIPE_CLIENT_CLI_SVG_H_

#include <string>
#include <string_view>

namespace gpipe::client {

// A drawing as SVG, in whole pixels from the top left. `look` is a class of the style sheet. Later shapes cover earlier
// ones. Texts may hold anything.
class Svg {
 public:
  void Box(int x, int y, int width, int height, std::string_view look);
  // Without round corners, for what is thin or stands in a row; `title` is shown when a mouse rests on it.
  void Bar(int x, int y, int width, int height, std::string_view look, std::string_view title);
  void Dot(int x, int y, std::string_view look);
  // Around `x` as the look has it (text-anchor).
  void Text(int x, int y, std::string_view look, std::string_view text);
  // `path` is in SVG's language; `title` is shown when a mouse rests on it.
  void Path(std::string_view path, std::string_view look, std::string_view title);

  // The whole file. `style` is CSS; looks that end in an arrow say `marker-end: url(#NAME)`, where the arrows are those
  // added before.
  void Arrow(std::string_view name, std::string_view color);
  // Stripes, for looks that say `fill: url(#NAME)`.
  void Hatch(std::string_view name, std::string_view color);
  std::string Render(int width, int height, std::string_view style) const;

 private:
  std::string definitions_;
  std::string shapes_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_SVG_H_
