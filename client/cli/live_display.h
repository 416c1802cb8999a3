#ifndef GPIPE_CLIENT_CLI_LIVE_DISPLAY_H_
#define GPIPE_CLIENT_CLI_LIVE_DISPLAY_H_

#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/display.h"
#include "client/cli/job_progress.h"

namespace gpipe::client {

// The control codes that replace `previous_lines` lines above the cursor by `lines`. The cursor ends below them.
std::string Redraw(int previous_lines, const std::vector<std::string>& lines);

// Draws the view of a job in place on a terminal. The cursor always rests below the view and nothing of the terminal's
// state is changed, so that there is nothing to restore, however the program ends.
class LiveDisplay : public Display {
 public:
  explicit LiveDisplay(std::FILE* out);
  ~LiveDisplay() override;
  void Show(const v1::WatchJobResponse& update) override;
  void Finish() override;

 private:
  void DrawLoop();
  void Draw();
  bool DirtyOrFinished() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return dirty_ || finished_; }

  std::FILE* const out_;
  const bool color_;
  int drawn_lines_ = 0;  // Of the drawing thread.
  absl::Mutex mutex_;
  JobProgress progress_ ABSL_GUARDED_BY(mutex_);
  bool dirty_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::jthread thread_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_LIVE_DISPLAY_H_
