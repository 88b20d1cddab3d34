"""The sample domain: a bookshop whose orders reserve stock in another service.

`contracts` is the language that the two services share, `fulfillment` and `inventory` are the
services (each with its own database; neither imports the other), `views` is what people look at.
"""
