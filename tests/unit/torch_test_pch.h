// The precompiled header of every test that includes LibTorch (cmake/GpipeTargets.cmake).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/torch_pch.h"
