#ifndef GPIPE_PIPELINE_GRID_H_
#define GPIPE_PIPELINE_GRID_H_

#include <string>

#include "pipeline/schedule.h"

namespace gpipe::pipeline {

// RenderGrid's drawing of the neighbourhood of one cell, with the cell in brackets and its line pointed at. Bounded in
// size, because it travels in a status. Draws any schedule, however broken; a cycle outside it counts as the nearest.
// REQUIRES: the schedule has this row, and cycles >= 1.
std::string RenderGridAround(const Schedule& schedule, int worker, int cycle);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_GRID_H_
