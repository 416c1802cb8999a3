#include "worker/model/shared_input.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <memory>
#include <utility>

namespace gpipe::worker {
namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

// The end of what the products add to. Autograd comes to it when all of them are through.
struct SharedInput : public Node {
  void Add(const at::Tensor& gradient, const at::Tensor& weight) {
    if (!sum.defined()) {
      sum = at::matmul(gradient, weight).contiguous();
    } else {
      sum.view({-1, sum.size(-1)}).addmm_(gradient.reshape({-1, gradient.size(-1)}), weight);
    }
  }

  // `others` is what came without Add.
  variable_list apply(variable_list&& others) override {
    at::Tensor all = std::exchange(sum, at::Tensor());
    if (others[0].defined()) all = all.defined() ? all.add_(others[0]) : others[0];
    return {all};
  }

  void release_variables() override { sum.reset(); }

  at::Tensor sum;
};

}  // namespace

at::Tensor ShareInput(const at::Tensor& x) {
  if (!at::GradMode::is_enabled() || !x.requires_grad() || !x.is_cuda() || x.dim() < 2) return x;
  const std::shared_ptr<SharedInput> node(new SharedInput, torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(x));
  at::Tensor shared = x.variable_data();  // No view, which autograd would keep account of.
  torch::autograd::create_gradient_edge(shared, node);
  return shared;
}

bool AddToSharedInput(uint32_t input, const at::Tensor& gradient, const at::Tensor& weight) {
  const std::shared_ptr<Node> running = torch::autograd::get_current_node();
  if (running == nullptr || input >= running->num_outputs()) return false;
  auto* const shared = dynamic_cast<SharedInput*>(running->next_edge(input).function.get());
  if (shared == nullptr) return false;
  shared->Add(gradient, weight);
  return true;
}

}  // namespace gpipe::worker
