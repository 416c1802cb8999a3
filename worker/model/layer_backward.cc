#include "worker/model/layer_backward.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <utility>

namespace gpipe::worker {
namespace {

// Where the gradient of what a layer reads ends. Autograd itself adds in place as well.
struct GradientEnd : public torch::autograd::Node {
  explicit GradientEnd(at::Tensor sum) : sum(std::move(sum)) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    const at::NoGradGuard no_grad;
    if (sum.defined() && gradients[0].defined()) sum.add_(gradients[0]);
    return {};
  }

  at::Tensor sum;  // May be undefined.
};

}  // namespace

std::vector<at::Tensor> WithGradientsEnded(const std::vector<at::Tensor>& values) {
  std::vector<at::Tensor> readable;
  for (const at::Tensor& value : values) {
    // Counts its own changes: many passes may read the same value.
    readable.push_back(value.variable_data());
    if (!value.requires_grad()) continue;
    torch::autograd::create_gradient_edge(
        readable.back(),
        std::shared_ptr<torch::autograd::Node>(new GradientEnd(value.grad()), torch::autograd::deleteNode));
  }
  return readable;
}

LayerBackward::LayerBackward(const std::vector<at::Tensor>& outputs) {
  for (const at::Tensor& output : outputs) {
    if (!output.requires_grad()) continue;
    roots_.push_back({torch::autograd::impl::gradient_edge(output), output.sizes().vec(),
                      OrderOf(output.sizes(), output.strides()), output.options()});
  }
}

std::vector<at::Tensor> LayerBackward::MakeGradients() const {
  std::vector<at::Tensor> gradients;
  for (const Root& root : roots_) gradients.push_back(EmptyInOrder(root.sizes, root.order, root.options).fill_(1));
  return gradients;
}

void LayerBackward::Run(const std::vector<at::Tensor>& gradients) const {
  if (roots_.empty()) return;
  torch::autograd::edge_list edges;
  for (const Root& root : roots_) edges.push_back(root.edge);
  torch::autograd::Engine::get_default_engine().execute(edges, gradients, /*keep_graph=*/false, /*create_graph=*/false,
                                                        /*accumulate_grad=*/true);
}

}  // namespace gpipe::worker
