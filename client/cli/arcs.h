#ifndef GPIPE_CLIENT_CLI_ARCS_H_
#define GPIPE_CLIENT_CLI_ARCS_H_

#include <string>
#include <vector>

namespace gpipe::client {

// Where lines run that lead from one column of a drawing over others to a later one, each with a few lines of text on
// it: as near to the columns as they can without meeting.

struct Arc {
  int from = 0;  // Column.
  int to = 0;
  int lines = 1;  // Of its text.
};

struct Lanes {
  std::vector<int> offset;  // By arc, its distance from the columns.
  int height = 0;           // Of all of them.
};

// Shorter arcs lie inside of longer ones.
Lanes LanesOf(const std::vector<Arc>& arcs, int line_height);

// Where an arc leaves and enters its columns, as shares of their width.
struct Port {
  double from = 0;
  double to = 0;
};

// What arrives is left of what leaves, and of those the ones further out are further outside, so that arcs cross as
// little as they can. REQUIRES: `lanes` are the arcs'.
std::vector<Port> PortsOf(const std::vector<Arc>& arcs, const Lanes& lanes);

// In SVG's language: up from (from_x, base), over at `y`, and down to (to_x, base), with round corners.
std::string ArcPath(int from_x, int to_x, int base, int y);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_ARCS_H_
