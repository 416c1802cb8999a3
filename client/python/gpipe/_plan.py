"""How a job would be cut and run. Drawn here, and not by the program `gpipe`, so that a notebook needs nothing but this
package."""

from __future__ import annotations

from collections.abc import Sequence

from gpipe import v1
from gpipe._format import bytes_text, percent_text, seconds_text, table_text
from gpipe._svg import Drawn, Svg, arrow, shortened

MOST_BOXES, MOST_VALUES = 8, 6  # Of a stage; between two.
CHARACTER, MARGIN, TOP, HEADER, BOX_STEP, LINE, LANE = 7, 24, 79, 40, 24, 15, 30
STYLE = """text { font: 11px Helvetica, Arial, sans-serif; fill: #1e293b; }
.title { font-size: 16px; font-weight: bold; }
.stage { font-size: 13px; font-weight: bold; text-anchor: middle; }
.note { fill: #475569; }
.middle { text-anchor: middle; }
.name { font: 11px DejaVu Sans Mono, Menlo, monospace; }
.value { font: 10px DejaVu Sans Mono, Menlo, monospace; text-anchor: middle; }
.bytes { font-size: 10px; text-anchor: middle; fill: #475569; }
.worker0 { fill: #eff6ff; stroke: #93c5fd; }
.worker1 { fill: #f0fdf4; stroke: #86efac; }
.worker2 { fill: #fff7ed; stroke: #fdba74; }
.worker3 { fill: #faf5ff; stroke: #d8b4fe; }
.layer { fill: #ffffff; stroke: #94a3b8; }
.cross { fill: none; stroke: #334155; stroke-width: 1.5; marker-end: url(#gpipe-cross); }
.skip { fill: none; stroke: #b45309; stroke-width: 1.5; marker-end: url(#gpipe-skip); }
.skipped { fill: #b45309; }
"""
ITEM_BYTES = {"128": 16, "64": 8, "32": 4, "16": 2}


class Plan(Drawn):
    """What the orchestrator has planned. `message` is what the API says of it; a notebook shows it as a drawing."""

    def __init__(self, message: v1.PlanJobResponse):
        self.message = message

    @property
    def stages(self) -> Sequence[v1.Stage]:
        """Runs of layers that one worker executes as a unit."""
        return self.message.plan.stages

    @property
    def balance(self) -> list[int]:
        """Layers per stage."""
        return [stage.layer_count for stage in self.stages]

    @property
    def bubble_share(self) -> float:
        """Expected share of the workers' time in which they compute nothing: by the forecast, else (K-1)/(M+K-1)."""
        return self.message.forecast.bubble_share or self.message.bubble_share

    @property
    def grid(self) -> str:
        """The clock cycles of one mini-batch."""
        return self.message.grid

    @property
    def notes(self) -> list[str]:
        """What else there is to know: tensors of the weights that are left out, weights that a job would need."""
        return list(self.message.notes)

    def svg(self) -> str:
        """The drawing."""
        return _Drawing(self.message).draw()

    def __repr__(self) -> str:
        return f"<Plan of {len(self.stages)} stages, bubble {percent_text(self.bubble_share)}>"

    def __str__(self) -> str:
        plan = self.message.plan
        rows = [["STAGE", "WORKER", "LAYERS", "PARAMETERS", "WEIGHTS", "SENDS"]]
        for index, stage in enumerate(plan.stages):
            layers = layers_of(plan, stage)
            sent = sum(bytes_of(plan, edge) for edge in plan.edges if edge.from_stage == index)
            rows.append([str(index), str(_worker(plan, index)), str(stage.layer_count),
                         f"{sum(layer.parameter_count for layer in layers):,}",
                         bytes_text(sum(layer.parameter_bytes for layer in layers)), bytes_text(sent)])
        parts = [table_text(rows), self.grid.rstrip(), *self.notes]
        return "\n\n".join(part for part in parts if part)


def layers_of(plan: v1.Plan, stage: v1.Stage) -> Sequence[v1.LayerInfo]:
    """Those of one stage."""
    return plan.layers[stage.first_layer:stage.first_layer + stage.layer_count]


def bytes_of(plan: v1.Plan, edge: v1.Edge) -> int:
    """Of one micro-batch, the largest."""
    program = _main_program(plan)
    samples = max(program.micro_batch_sizes, default=0) if program else 0
    count = 1
    for size in edge.shape:
        count *= size.fixed + samples * size.per_sample
    name = v1.DataType.Name(edge.dtype)
    return count * next((size for bits, size in ITEM_BYTES.items() if name.endswith(bits)), 1)


def _main_program(plan: v1.Plan) -> v1.Program | None:
    """The one that the job spends its time in."""
    programs = [program for program in plan.programs
                if program.kind not in (v1.PROGRAM_KIND_EVALUATE, v1.PROGRAM_KIND_CHECK_LOSS)]
    return max(programs, key=lambda program: program.batch_size, default=None)


def _worker(plan: v1.Plan, stage: int) -> int:
    return plan.stage_worker[stage] if stage < len(plan.stage_worker) else -1


def _labels(plan: v1.Plan, stage: v1.Stage) -> list[tuple[str, int]]:
    """Neighbouring layers with the parameters that they have; those of a module that is cut finely as one, and of what
    is still too much the middle."""
    exported = any(layer.first_node for layer in plan.layers)
    names = [(layer.kind or "(model)") if exported else f"{stage.first_layer + i} {layer.kind}"
             for i, layer in enumerate(layers_of(plan, stage))]
    depth = max((name.count(".") + 1 for name in names), default=1) if exported else 1
    while True:
        groups: list[tuple[str, int]] = []
        for name, layer in zip(names, layers_of(plan, stage)):
            label = ".".join(name.split(".")[:depth]) if exported else name
            if exported and groups and groups[-1][0] == label:
                groups[-1] = label, groups[-1][1] + layer.parameter_count
            else:
                groups.append((label, layer.parameter_count))
        if len(groups) <= MOST_BOXES or depth == 1:
            break
        depth -= 1
    if len(groups) <= MOST_BOXES:
        return groups
    before, behind = MOST_BOXES // 2, MOST_BOXES - MOST_BOXES // 2 - 1
    middle = groups[before:len(groups) - behind]
    return [*groups[:before], (f"... {len(middle)} more", sum(each[1] for each in middle)), *groups[-behind:]]


class _Drawing:
    """A column for each stage, arrows between neighbours, arcs over those that a value skips."""

    def __init__(self, response: v1.PlanJobResponse):
        self._response, self._plan = response, response.plan
        self._boxes = [_labels(self._plan, stage) for stage in self._plan.stages]
        self._skips: dict[tuple[int, int], list[v1.Edge]] = {}
        self._crossings: dict[int, list[v1.Edge]] = {}
        for edge in self._plan.edges:
            if edge.to_stage > edge.from_stage + 1:
                self._skips.setdefault((edge.from_stage, edge.to_stage), []).append(edge)
            else:
                self._crossings.setdefault(edge.from_stage, []).append(edge)
        longest = max((len(self._row(box)) for boxes in self._boxes for box in boxes), default=0)
        value = max((len(edge.value) for edges in self._crossings.values() for edge in edges), default=0)
        self._column = max(18, min(longest, 44)) * CHARACTER + 30
        self._gap = min(value, 20) * CHARACTER + 40
        self._rows = max([3, *map(len, self._boxes)])
        self._top = TOP + len(self._skips) * LANE
        self._bottom = self._top + HEADER + self._rows * BOX_STEP + 4 * LINE + 8
        self._svg = Svg("gpipe-plan", STYLE, arrow("gpipe-cross", "#334155") + arrow("gpipe-skip", "#b45309"))

    def draw(self) -> str:
        self._draw_words()
        for stage in range(len(self._plan.stages)):
            self._draw_stage(stage)
        for stage, edges in self._crossings.items():
            self._draw_crossings(stage, edges)
        for lane, (ends, edges) in enumerate(sorted(self._skips.items(), key=lambda item: item[0][1] - item[0][0])):
            self._draw_skip(lane, ends, edges)
        width = 2 * MARGIN + len(self._plan.stages) * (self._column + self._gap) - self._gap
        return self._svg.render(max(width, 640), self._bottom + MARGIN)

    @staticmethod
    def _row(box: tuple[str, int]) -> str:
        return f"{shortened(box[0], 30)}  {box[1]:,}" if box[1] else shortened(box[0], 30)

    def _left(self, stage: int) -> int:
        return MARGIN + stage * (self._column + self._gap)

    def _draw_words(self) -> None:
        stages, workers = len(self._plan.stages), max(self._plan.stage_worker, default=-1) + 1
        self._svg.text(MARGIN, 28, "title", f"{stages} {'stage' if stages == 1 else 'stages'} on {workers} "
                                            f"{'worker' if workers == 1 else 'workers'}")
        words, program, forecast = [], _main_program(self._plan), self._response.forecast
        if program is not None:
            words.append(f"a mini-batch of {program.batch_size} in {len(program.micro_batch_sizes)} micro-batches")
        if forecast.step_seconds:
            words.append(f"{seconds_text(forecast.step_seconds)} a step")
        words.append(f"bubble {percent_text(forecast.bubble_share or self._response.bubble_share)}")
        self._svg.text(MARGIN, 46, "note", ", ".join(words))
        self._svg.text(MARGIN, 46 + LINE, "note", "numbers are parameters, bytes are of one micro-batch")

    def _draw_stage(self, stage: int) -> None:
        left, worker = self._left(stage), _worker(self._plan, stage)
        middle = left + self._column // 2
        self._svg.box(left, self._top, self._column, self._bottom - self._top, f"worker{max(worker, 0) % 4}")
        self._svg.text(middle, self._top + 18, "stage", f"stage {stage}")
        inputs = self._plan.stages[stage].inputs
        if inputs:
            self._svg.text(middle, self._top + 33, "note middle",
                           shortened(f"reads {', '.join(inputs)}", self._column // CHARACTER))
        for row, box in enumerate(self._boxes[stage]):
            y = self._top + HEADER + row * BOX_STEP
            self._svg.box(left + 10, y, self._column - 20, BOX_STEP - 4, "layer", box[0])
            self._svg.text(left + 16, y + 14, "name", self._row(box))
        y = self._top + HEADER + self._rows * BOX_STEP + LINE
        for line in self._facts(stage):
            self._svg.text(middle, y, "middle", line)
            y += LINE

    def _facts(self, stage: int) -> list[str]:
        layers, worker = layers_of(self._plan, self._plan.stages[stage]), _worker(self._plan, stage)
        facts = [f"worker {worker}" if worker >= 0 else "",
                 f"{sum(layer.parameter_count for layer in layers):,} parameters"]
        if stage < len(self._response.forecast.stages):
            forecast = self._response.forecast.stages[stage]
            memory = forecast.state_bytes + forecast.peak_saved_bytes + forecast.working_bytes
            return [*facts, f"{bytes_text(memory)} of memory",
                    f"{seconds_text(forecast.forward_seconds + forecast.backward_seconds)} a micro-batch"]
        return [*facts, f"{bytes_text(sum(layer.parameter_bytes for layer in layers))} of weights"]

    def _draw_crossings(self, stage: int, edges: list[v1.Edge]) -> None:
        """An arrow per value, as far as there is room."""
        rows = [(edge.value, bytes_of(self._plan, edge)) for edge in edges]
        room = min(MOST_VALUES, self._rows * BOX_STEP // 34)
        if len(rows) > room:
            rest = rows[room - 1:]
            rows = [*rows[:room - 1], (f"{len(rest)} more", sum(each[1] for each in rest))]
        left = self._left(stage) + self._column
        for row, (name, size) in enumerate(rows):
            y = self._top + HEADER + 14 + row * 34
            self._svg.path(f"M{left},{y} H{left + self._gap - 1}", "cross", name)
            self._svg.text(left + self._gap // 2, y - 4, "value", shortened(name, (self._gap - 20) // CHARACTER))
            self._svg.text(left + self._gap // 2, y + 12, "bytes", bytes_text(size))

    def _draw_skip(self, lane: int, ends: tuple[int, int], edges: list[v1.Edge]) -> None:
        start, end = self._left(ends[0]) + self._column * 3 // 4, self._left(ends[1]) + self._column // 4
        y = self._top - 14 - lane * LANE
        self._svg.path(f"M{start},{self._top} V{y + 10} Q{start},{y} {start + 10},{y} H{end - 10} "
                       f"Q{end},{y} {end},{y + 10} V{self._top}", "skip", ", ".join(edge.value for edge in edges))
        names = ", ".join(edge.value for edge in edges)
        size = sum(bytes_of(self._plan, edge) for edge in edges)
        self._svg.text((start + end) // 2, y - 4, "value skipped",
                       f"{shortened(names, max(12, (end - start) // CHARACTER - 12))}  {bytes_text(size)}")
