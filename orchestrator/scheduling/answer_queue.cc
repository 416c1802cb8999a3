#include "orchestrator/scheduling/answer_queue.h"

#include <utility>

namespace gpipe::orchestrator {

void AnswerQueue::Next(Deliver deliver) {
  AnswerDelivery delivery;
  {
    absl::MutexLock lock(&mutex_);
    waiting_ = std::move(deliver);
    delivery = Match();
  }
  delivery.Run();
}

void AnswerQueue::Push(v1::AskRoundsResponse answer) {
  AnswerDelivery delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    answers_.push_back(std::move(answer));
    delivery = Match();
  }
  delivery.Run();
}

size_t AnswerQueue::unread() {
  absl::MutexLock lock(&mutex_);
  return answers_.size();
}

void AnswerQueue::Close(const absl::Status& end) {
  AnswerDelivery delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    closed_ = true;
    end_ = end;
    delivery = Match();
  }
  delivery.Run();
}

void AnswerQueue::Abandon() {
  AnswerDelivery delivery;
  {
    absl::MutexLock lock(&mutex_);
    if (!closed_) end_ = absl::CancelledError("the client went away");
    closed_ = true;
    answers_.clear();
    delivery = Match();
  }
  delivery.Run();
}

AnswerDelivery AnswerQueue::Match() {
  if (!waiting_ || (answers_.empty() && !closed_)) return {};
  AnswerDelivery delivery{.deliver = std::exchange(waiting_, nullptr), .end = end_};
  if (!answers_.empty()) {
    delivery.item = std::move(answers_.front());
    answers_.pop_front();
  }
  return delivery;
}

}  // namespace gpipe::orchestrator
