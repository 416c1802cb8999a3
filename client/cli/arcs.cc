#include "client/cli/arcs.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace gpipe::client {
namespace {

constexpr int kSpace = 16;  // Between a lane's text and the next lane.
constexpr int kCorner = 10;

bool Overlap(const Arc& a, const Arc& b) { return a.from < b.to && b.from < a.to; }

std::vector<size_t> ShortestFirst(const std::vector<Arc>& arcs) {
  std::vector<size_t> order(arcs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return arcs[a].to - arcs[a].from < arcs[b].to - arcs[b].from; });
  return order;
}

}  // namespace

Lanes LanesOf(const std::vector<Arc>& arcs, int line_height) {
  std::vector<std::vector<size_t>> lanes;  // The arcs of each.
  for (const size_t arc : ShortestFirst(arcs)) {
    const auto free = std::find_if(lanes.begin(), lanes.end(), [&](const std::vector<size_t>& lane) {
      return std::none_of(lane.begin(), lane.end(), [&](size_t other) { return Overlap(arcs[arc], arcs[other]); });
    });
    if (free == lanes.end()) {
      lanes.push_back({arc});
    } else {
      free->push_back(arc);
    }
  }
  Lanes result{std::vector<int>(arcs.size()), 0};
  for (const std::vector<size_t>& lane : lanes) {
    int lines = 0;
    for (const size_t arc : lane) {
      result.offset[arc] = result.height + kSpace;
      lines = std::max(lines, arcs[arc].lines);
    }
    result.height += kSpace + lines * line_height;
  }
  return result;
}

std::vector<Port> PortsOf(const std::vector<Arc>& arcs, const Lanes& lanes) {
  struct End {
    size_t arc;
    bool arrives;
    int offset;
  };
  std::map<int, std::vector<End>> columns;
  for (size_t i = 0; i < arcs.size(); ++i) {
    columns[arcs[i].from].push_back({i, false, lanes.offset[i]});
    columns[arcs[i].to].push_back({i, true, lanes.offset[i]});
  }
  std::vector<Port> ports(arcs.size());
  for (auto& [column, ends] : columns) {
    std::stable_sort(ends.begin(), ends.end(), [](const End& a, const End& b) {
      if (a.arrives != b.arrives) return a.arrives;
      return a.arrives ? a.offset < b.offset : a.offset > b.offset;
    });
    for (size_t i = 0; i < ends.size(); ++i) {
      const double share = static_cast<double>(i + 1) / static_cast<double>(ends.size() + 1);
      (ends[i].arrives ? ports[ends[i].arc].to : ports[ends[i].arc].from) = share;
    }
  }
  return ports;
}

std::string ArcPath(int from_x, int to_x, int base, int y) {
  const int inner = y < base ? y + kCorner : y - kCorner;
  return absl::StrCat("M", from_x, ",", base, " V", inner, " Q", from_x, ",", y, " ", from_x + kCorner, ",", y, " H",
                      to_x - kCorner, " Q", to_x, ",", y, " ", to_x, ",", inner, " V", base);
}

}  // namespace gpipe::client
