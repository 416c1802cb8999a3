#include "worker/model/layer_backward.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <utility>

namespace gpipe::worker {
namespace {

// Where a gradient that nobody uses ends.
struct NoFurther : public torch::autograd::Node {
  torch::autograd::variable_list apply(torch::autograd::variable_list&&) override { return {}; }
};

void EndGradient(at::Tensor& value) {
  torch::autograd::create_gradient_edge(
      value, std::shared_ptr<torch::autograd::Node>(new NoFurther(), torch::autograd::deleteNode));
}

}  // namespace

std::vector<at::Tensor> WithUnusedGradients(const std::vector<at::Tensor>& values) {
  std::vector<at::Tensor> readable;
  for (const at::Tensor& value : values) {
    // Counts its own changes: many passes may read the same value.
    readable.push_back(value.variable_data());
    if (value.requires_grad()) EndGradient(readable.back());
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
