"""Networks: recurrent networks on windows of features. Importing this package loads no Torch."""
